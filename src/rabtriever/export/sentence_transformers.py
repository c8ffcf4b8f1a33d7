"""The student as a folder that plain ``SentenceTransformer(folder)`` loads, without this package or remote code.

A ``Router`` sends queries and documents through the same backbone with a tokenizer each. After the last token's state,
queries pass the predictor's layers, into which all that is linear has been folded; documents pass one layer or none::

    query:    Transformer -> Pooling -> Dense(ReLU) ... -> Dense      q = (w_T - w_F) * MLP(e_Q)
    document: Transformer -> Pooling (-> Dense)                       e_D, or g(e_D) with a rank

Two tokenizers need two ``Transformer`` modules, since the library binds a tokenizer to a model; their weights are one
file with two names. A student whose queries are read with an adapter of their own has two files of weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rabtriever.export.report import (
    ExportReport,
    Probe,
    difference,
    folder_bytes,
    require_packages,
    same_ids,
)
from rabtriever.files import atomic_folder, check_replaceable, write_json, write_text
from rabtriever.graph_folder import MARKER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rabtriever.export.modules import Layer
    from rabtriever.export.readme import Storage
    from rabtriever.export.towers import Towers
    from rabtriever.retriever import Retriever

__all__ = ["export_sentence_transformers"]


def export_sentence_transformers(model: str | Path, output: str | Path) -> ExportReport:
    """Write a trained student so that sentence-transformers gives the same vectors.

    The written folder is loaded once and compared; where it disagrees, nothing is left behind. A former export at
    ``output`` is replaced.

    Args:
        model: A folder made by ``rabtriever train`` or ``rabtriever distill``.
        output: The folder to write.

    Returns:
        The measured differences of query vectors ``(m, k)``, document vectors ``(n, k)`` and similarities ``(m, n)``.

    Raises:
        InputError: If the model has no student, its tokenizer cannot carry the prompt, ``output`` holds something else
            or sentence-transformers is missing.
        RabtrieverError: If the export disagrees with the model.

    Example:
        >>> export_sentence_transformers("my-model", "my-model-st").differences     # doctest: +SKIP
        {'queries': 1.2e-06, 'documents': 9.1e-07, 'similarities': 1.8e-06}
    """
    require_packages("export", "sentence_transformers")
    output = Path(output)
    check_replaceable(output.expanduser(), marker=MARKER)
    from rabtriever.export.readme import student_readme
    from rabtriever.export.towers import read_probes
    from rabtriever.retriever import Retriever

    student = Retriever.from_pretrained(model, dtype="float32", device="cpu")
    with atomic_folder(output, marker=MARKER) as folder:
        towers, storage = _write(student, folder)
        notes = towers.notes()
        bias, fingerprint, dimension = student.bias, student.fingerprint, student.dimension
        expected = read_probes(student, towers)
        del student  # three copies of a large backbone need not stand in memory at once
        differences = _compare(folder, expected)
        write_text(
            folder / "README.md", student_readme(output.name, dimension, bias, differences, notes, storage=storage)
        )
        write_json(
            folder / MARKER,
            {
                "format_version": 1,
                "kind": "sentence-transformers",
                "bias": bias,
                "fingerprint": fingerprint,
                "differences": differences,
            },
        )
        size = folder_bytes(folder)
    return ExportReport(output, "sentence-transformers", differences, size, notes)


def _write(student: Retriever, folder: Path) -> tuple[Towers, Storage]:
    from rabtriever.export.modules import (
        document_layers,
        link_weights,
        query_layers,
        write_backbone,
        write_pooling,
        write_tokenizer,
    )
    from rabtriever.export.towers import Towers

    reranker = student.reranker
    towers = Towers.of(reranker.prompt)
    write_backbone(folder / "document_0_Transformer", reranker.backbone)
    storage: Storage = "own"
    if student.query_side is not None:
        write_backbone(folder / "query_0_Transformer", student.query_backbone)
    else:
        linked = link_weights(folder / "document_0_Transformer", folder / "query_0_Transformer")
        storage = "linked" if linked else "copied"
    write_tokenizer(folder / "document_0_Transformer", towers.document)
    write_tokenizer(folder / "query_0_Transformer", towers.query)
    write_pooling(folder / "1_Pooling", reranker.backbone.hidden_size)
    types = {"query_0_Transformer": "Transformer", "document_0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    structure = {
        "query": ["query_0_Transformer", "1_Pooling"],
        "document": ["document_0_Transformer", "1_Pooling"],
    }
    routes = {
        "query": query_layers(student.predictor, reranker.rows.direction),
        "document": document_layers(student.predictor),
    }
    for route, layers in routes.items():
        for name in _write_layers(folder, route, layers):
            types[name] = "Dense"
            structure[route].append(name)
    _write_frame(folder, types, structure, towers)
    return towers, storage


def _write_layers(folder: Path, route: str, layers: Sequence[Layer]) -> list[str]:
    from rabtriever.export.modules import write_dense

    names = [f"{route}_{place}_Dense" for place in range(2, 2 + len(layers))]
    for name, layer in zip(names, layers, strict=True):
        write_dense(folder / name, layer, relu=name != names[-1])
    return names


def _write_frame(folder: Path, types: dict[str, str], structure: dict[str, list[str]], towers: Towers) -> None:
    from rabtriever.export.modules import TYPES

    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": TYPES["Router"]}])
    write_json(
        folder / "router_config.json",
        {
            "types": {name: TYPES[kind] for name, kind in types.items()},
            "structure": structure,
            # A text without a task is refused: read as the wrong part, it would be found or ranked at random.
            "parameters": {"default_route": None, "allow_empty_key": False},
        },
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": {"query": towers.query.prompt, "document": towers.document.prompt},
            "default_prompt_name": None,
            "similarity_fn_name": "dot",
        },
    )


def _compare(folder: Path, expected: dict[str, Probe]) -> dict[str, float]:
    """Load the folder as a user would, and compare it with the student."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    query, document = expected["query"], expected["document"]
    router: Any = model[0]
    for route, probe in expected.items():
        for text, ids in zip(probe.texts, probe.ids, strict=True):
            prepared = (model.prompts[route] or "") + text
            same_ids(route, text, router.preprocess([prepared], task=route)["input_ids"][0].tolist(), ids)
    queries = np.asarray(model.encode_query(query.texts, batch_size=4), np.float32)
    documents = np.asarray(model.encode_document(document.texts, batch_size=4), np.float32)
    similarities = np.asarray(model.similarity(queries, documents), np.float32)
    return {
        "queries": difference("query vectors", queries, query.vectors),
        "documents": difference("document vectors", documents, document.vectors),
        "similarities": difference("similarities", similarities, query.vectors @ document.vectors.T),
    }
