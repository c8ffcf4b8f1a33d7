"""The teacher as a folder that plain ``CrossEncoder(folder)`` loads, without this package and without remote code.

The log-odds are ``(w_T - w_F) . M(D, Q)[-1] + b_T - b_F``, so the head becomes one dense layer after the last token's
state. (The library's own ``LogitScore`` reads two logits of the whole head instead. It pads on the left, which shifts
positions in families that learn them, and takes logits after a soft-cap; the score here is defined before it.)

Pairs come as (query, document). The tokenizer's post-processor puts the second before the first, with the template.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.export.report import (
    PROBES,
    ExportReport,
    difference,
    folder_bytes,
    require_packages,
    same_ids,
)
from rabtriever.files import atomic_folder, check_replaceable, write_json, write_text
from rabtriever.graph_folder import MARKER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.prompt import Prompt
    from rabtriever.reranker import Reranker

__all__ = ["export_cross_encoder"]


def export_cross_encoder(model: str | Path, output: str | Path) -> ExportReport:
    """Write a teacher so that sentence-transformers gives the same log-odds.

    The written folder is loaded once and compared; where it disagrees, nothing is left behind. A former export at
    ``output`` is replaced. A LoRA adapter is merged into the weights, in float32.

    Args:
        model: A trained reranker or retriever, or any causal LM as an untrained reranker.
        output: The folder to write.

    Returns:
        The measured difference of the log-odds of pairs, ``(n,)``.

    Raises:
        InputError: If the tokenizer cannot carry the prompt, ``output`` holds something else or sentence-transformers
            is missing.
        RabtrieverError: If the export disagrees with the model.

    Example:
        >>> export_cross_encoder("my-model", "my-model-ce").differences     # doctest: +SKIP
        {'log-odds': 2.1e-06}
    """
    require_packages("export", "sentence_transformers")
    output = Path(output)
    check_replaceable(output.expanduser(), marker=MARKER)
    from rabtriever.export.readme import teacher_readme
    from rabtriever.reranker import Reranker

    teacher = Reranker.from_pretrained(model, dtype="float32", device="cpu")
    config, fingerprint = teacher.prompt.config, teacher.fingerprint
    notes = [
        f"Where a document has more than {config.max_document_tokens} tokens or a query more than "
        f"{config.max_query_tokens}, the two share one limit here, and the longer one loses its end first."
    ]
    if teacher.adapter is not None:
        notes.append("The LoRA adapter has been merged into the weights; the difference above includes it.")
    with atomic_folder(output, marker=MARKER) as folder:
        _write(teacher, folder)
        pairs = _pairs(teacher.prompt)
        ids = [teacher.prompt.document_ids(document) + teacher.prompt.query_ids(query) for query, document in pairs]
        expected = np.concatenate([teacher.score(query, [document]) for query, document in pairs])
        del teacher
        differences = {"log-odds": _compare(folder, pairs, ids, expected)}
        write_text(folder / "README.md", teacher_readme(output.name, differences, notes))
        marker = {"format_version": 1, "kind": "cross-encoder", "fingerprint": fingerprint, "differences": differences}
        write_json(folder / MARKER, marker)
        size = folder_bytes(folder)
    return ExportReport(output, "cross-encoder", differences, size, notes)


def _write(teacher: Reranker, folder: Path) -> None:
    import torch

    from rabtriever.export.modules import TYPES, write_backbone, write_dense, write_pooling, write_tokenizer
    from rabtriever.export.tokenizer import pair_tokenizer

    tokenizer = pair_tokenizer(teacher.prompt)
    # Not at the top: a version that does not know these modules would load it as a classifier with a random head.
    write_backbone(folder / "0_Transformer", teacher.backbone)
    write_tokenizer(folder / "0_Transformer", tokenizer)
    write_pooling(folder / "1_Pooling", teacher.backbone.hidden_size)
    layer = teacher.rows.direction[None], torch.tensor([teacher.rows.offset])
    write_dense(folder / "2_Dense", layer, output="scores")
    modules = [("0_Transformer", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
    write_json(
        folder / "modules.json",
        [
            {"idx": place, "name": str(place), "path": path, "type": TYPES[kind]}
            for place, (path, kind) in enumerate(modules)
        ],
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "CrossEncoder",
            "prompts": {},
            "default_prompt_name": None,
            "activation_fn": "torch.nn.modules.linear.Identity",
        },
    )


def _pairs(prompt: Prompt) -> list[tuple[str, str]]:
    """Each probe as a query and as a document, as long as neither is truncated."""
    pairs = [pair for text in PROBES for pair in ((text, "find a sponge"), ("I spilled my coke", text))]
    config = prompt.config
    query_rest, document_rest = len(prompt.query_ids("")), len(prompt.document_ids(""))
    return [
        (query, document)
        for query, document in pairs
        if len(prompt.query_ids(query)) < query_rest + config.max_query_tokens
        and len(prompt.document_ids(document)) < document_rest + config.max_document_tokens
    ]


def _compare(folder: Path, pairs: list[tuple[str, str]], ids: list[list[int]], expected: NDArray[np.float32]) -> float:
    """Load the folder as a user would, and compare it with the teacher."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    for (query, document), wanted in zip(pairs, ids, strict=True):
        found = model.preprocess([(query, document)])["input_ids"][0].tolist()
        same_ids("pair", f"{query} | {document}", found, wanted)
    scores = model.predict(pairs, batch_size=4, show_progress_bar=False)
    return difference("log-odds", np.asarray(scores, np.float32), expected)
