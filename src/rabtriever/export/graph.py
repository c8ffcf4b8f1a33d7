"""The student as one graph, for ONNX Runtime or OpenVINO: ids go in, a query and a document vector come out.

Both towers share the backbone, and what follows it costs next to nothing, so one graph gives both vectors and the
weights are stored once; where queries are read with an adapter of their own, they have a second graph. Who runs it
takes the vector of the part of the prompt that the ids were written for. Texts become ids by the ``tokenizers`` library
alone: each tower's file carries its part of the prompt.

The graph is traced by transformers' own exporters (optimum's want older versions of transformers).
"""

from __future__ import annotations

import io
import json
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rabtriever.compiled import SourceTeacher
from rabtriever.export.modules import document_layers, query_layers
from rabtriever.export.report import PROBES, ExportReport, difference, folder_bytes, require_packages, same_ids
from rabtriever.export.tokenizer import text_pipeline
from rabtriever.export.towers import Towers, read_probes
from rabtriever.files import atomic_folder, check_replaceable, write_json, write_text
from rabtriever.graph_folder import (
    GRAPH,
    MARKER,
    PIPELINE,
    START,
    GraphConfig,
    Run,
    Runtime,
    open_graph,
    query_graph,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.backbone import Backbone
    from rabtriever.export.report import Probe
    from rabtriever.export.tokenizer import TowerTokenizer
    from rabtriever.retriever import Retriever

__all__ = ["export_graph"]

_NEEDED = {
    "onnx": ("transformers.exporters", "onnx", "onnxscript", "onnxruntime"),
    "openvino": ("transformers.exporters", "openvino"),
}
_TIMED = "I spilled my coke on the table, what now?"
_REPEATS = 7


def export_graph(model: str | Path, output: str | Path, runtime: Runtime) -> ExportReport:
    """Write a trained student as a graph that ONNX Runtime or OpenVINO computes without torch and without this package.

    The written folder is loaded once and compared, text by text and in a batch; where it disagrees, nothing is left
    behind. A former export at ``output`` is replaced.

    Args:
        model: A folder made by ``rabtriever train`` or ``rabtriever distill``, a shipped model or a hub id.
        output: The folder to write.
        runtime: ``onnx`` or ``openvino``.

    Returns:
        The measured differences of query vectors ``(m, k)`` and document vectors ``(n, k)``, and the milliseconds that
        one short query takes here and there, in float32.

    Raises:
        InputError: If the model has no student, its tokenizer cannot carry the prompt, ``output`` holds something else
            or a package is missing.
        RabtrieverError: If the export disagrees with the model.

    Example:
        >>> export_graph("my-model", "my-model-onnx", "onnx").differences     # doctest: +SKIP
        {'queries': 1.4e-06, 'documents': 9.0e-07}
    """
    require_packages(runtime, *_NEEDED[runtime])
    output = Path(output)
    check_replaceable(output.expanduser(), marker=MARKER)
    from rabtriever.export.readme import graph_readme
    from rabtriever.retriever import Retriever

    student = Retriever.from_pretrained(model, dtype="float32", device="cpu")
    towers = Towers.of(student.reranker.prompt)
    with atomic_folder(output, marker=MARKER) as folder:
        for route, tower in (("query", towers.query), ("document", towers.document)):
            (folder / route).mkdir()
            tower.with_truncation().save(folder / route)
        start = _start(student, towers.prompt.parts.document_head)
        save_file({"states": start}, folder / START)
        own_query = student.query_side is not None
        _trace(student, student.reranker.backbone, folder / GRAPH[runtime], runtime, start)
        if own_query:
            _trace(student, student.query_backbone, folder / query_graph(runtime), runtime, start)
        run = open_graph(folder, runtime, own_query=own_query)
        differences = _compare(folder, towers, read_probes(student, towers), run, start.numpy())
        times = {
            "rabtriever": _milliseconds(lambda: student.encode_query([_TIMED])),
            "export": _time(folder, towers, run, start.numpy()),
        }
        config = _describe(student, model, output, runtime, towers, differences)
        readme = graph_readme(output.name, config, towers.notes(), start.shape)
        write_text(folder / "README.md", readme)
        write_text(folder / PIPELINE, json.dumps(text_pipeline(towers.prompt), ensure_ascii=False))
        write_json(folder / MARKER, config.model_dump(mode="json"))
        _compare_reading(student, SourceTeacher(config, folder))
        size = folder_bytes(folder)
    return ExportReport(output, runtime, differences, size, towers.notes(), times)


def _describe(
    student: Retriever,
    model: str | Path,
    output: Path,
    runtime: Runtime,
    towers: Towers,
    differences: dict[str, float],
) -> GraphConfig:
    return GraphConfig(
        kind=runtime,
        source=str(model),
        relative_source=os.path.relpath(model, output) if Path(model).is_dir() else None,
        fingerprint=student.fingerprint,
        document_fingerprint=student.document_fingerprint,
        teacher_fingerprint=student.reranker.fingerprint,
        prompt_hash=towers.prompt.hash,
        dimension=student.dimension,
        bias=student.bias,
        own_query_graph=student.query_side is not None,
        prompts={"query": towers.query.prompt, "document": towers.document.prompt},
        parts=towers.prompt.parts,
        differences=differences,
    )


def _compare_reading(student: Retriever, exported: SourceTeacher) -> None:
    """The prompt by the tokenizers library alone gives the ids that the prompt gives, long texts among them."""
    prompt, found = student.reranker.prompt, exported.prompt
    for text in (*PROBES, "what now? " * (prompt.config.max_query_tokens + prompt.config.max_document_tokens)):
        same_ids("query", text, found.query_ids(text), prompt.query_ids(text))
        same_ids("document", text, found.document_ids(text), prompt.document_ids(text))


def _dense(layers: list[tuple[Tensor, Tensor]]) -> nn.Sequential:
    """The layers, with a ReLU after each but the last."""
    parts: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight, bias
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _whole(student: Retriever, backbone: Backbone) -> Any:
    """Backbone, the state of each text's last token, and both towers' layers, as the exporters want it."""
    from transformers import DynamicCache, PreTrainedModel

    predictor, blocks = student.predictor, backbone.blocks

    class Student(PreTrainedModel):  # type: ignore[no-untyped-call]  # transformers types not all of itself
        """As far as its attention goes, it is what its backbone is."""

        _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

        def __init__(self) -> None:
            super().__init__(blocks.config)  # type: ignore[arg-type]
            self.blocks = blocks
            self.query = _dense(query_layers(predictor, student.reranker.rows.direction))
            self.document = _dense(document_layers(predictor))

        def forward(self, input_ids: Tensor, attention_mask: Tensor, start: Tensor) -> dict[str, Tensor]:
            rows, before = input_ids.shape[0], start.shape[2]
            kept = [layer.expand(rows, -1, -1, -1) for layer in start]
            read = torch.ones(rows, before, dtype=attention_mask.dtype)
            states = self.blocks(
                input_ids=input_ids,
                attention_mask=torch.cat([read, attention_mask], dim=1),
                position_ids=(attention_mask.cumsum(1) - 1).clamp_min(0) + before,
                past_key_values=DynamicCache(list(zip(kept[::2], kept[1::2], strict=True))),
                use_cache=True,
            ).last_hidden_state
            last = attention_mask.sum(1) - 1  # texts are padded on the right
            state = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
            # Not the state itself: an output that is nothing but another node's would lose its name.
            return {"query": self.query(state), "document": self.document(state) + 0.0}

    return Student().train(False)


def _start(student: Retriever, ids: list[int]) -> Tensor:
    """Keys and values of what every document begins with, ``(2 layers, heads, L', d_head)``; L' may be 0."""
    states = student.reranker.backbone.prefixes([ids or [0]])[0].states
    return states[:, :, :, : len(ids)].flatten(0, 1).float().contiguous()


def _trace(student: Retriever, backbone: Backbone, path: Path, runtime: Runtime, start: Tensor) -> None:
    from torch.export import Dim

    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 0, 0]])
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    axes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    begun = start.new_zeros(start.shape[0], start.shape[1], 5, start.shape[3])
    inputs = {"input_ids": ids, "attention_mask": mask, "start": begun}
    shapes = {"input_ids": axes, "attention_mask": axes, "start": {2: Dim.DYNAMIC}}
    options: dict[str, Any] = {"dynamic": True, "dynamic_shapes": shapes}
    exporter: Any
    config: Any
    if runtime == "onnx":
        from transformers.exporters.configs import OnnxConfig
        from transformers.exporters.exporter_onnx import OnnxExporter

        exporter, config = OnnxExporter(), OnnxConfig(**options)  # type: ignore[no-untyped-call]
    else:
        from transformers.exporters.configs import OpenVINOConfig
        from transformers.exporters.exporter_openvino import OpenVINOExporter

        exporter, config = OpenVINOExporter(), OpenVINOConfig(**options)  # type: ignore[no-untyped-call]
    with _silence(), torch.no_grad():
        exported = exporter.export(_whole(student, backbone), inputs, config=config)
        exporter.save_program(exported.program, path)


@contextmanager
def _silence() -> Iterator[None]:
    """Exporters tell on stdout and stderr how they get on, and how new their parts are."""
    from transformers.utils import logging as verbosity

    level = verbosity.get_verbosity()
    verbosity.set_verbosity(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        verbosity.set_verbosity(level)
        for logger, before in zip(loggers, levels, strict=True):
            logger.setLevel(before)


def _read(folder: Path, route: str, tower: TowerTokenizer, texts: list[str]) -> tuple[Any, Any]:
    """Ids and attention mask ``(n, L)``, as the README tells users to make them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / route / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    rows = tokenizer.encode_batch([tower.prompt + text for text in texts])
    return np.array([row.ids for row in rows]), np.array([row.attention_mask for row in rows])


def _compare(
    folder: Path, towers: Towers, expected: dict[str, Probe], run: Run, start: NDArray[np.float32]
) -> dict[str, float]:
    """Each probe's ids, and its vector alone and in a batch; a document's also behind what all of them begin with."""
    out, nothing = {}, start[:, :, :0]
    for route, tower in (("query", towers.query), ("document", towers.document)):
        probe = expected[route]
        ids, mask = _read(folder, route, tower, probe.texts)
        for text, row, kept, wanted in zip(probe.texts, ids, mask, probe.ids, strict=True):
            same_ids(route, text, row[kept == 1].tolist(), wanted)
        each = [(row[kept == 1][None], kept[kept == 1][None]) for row, kept in zip(ids, mask, strict=True)]
        found = [run(route, ids, mask, nothing), np.concatenate([run(route, *one, nothing) for one in each])]
        begun = start.shape[2]
        if route == "document" and mask.sum(1).min() > begun:
            found.append(run(route, ids[:, begun:], mask[:, begun:], start))
        worst = [difference(f"{route} vectors", vectors, probe.vectors) for vectors in found]
        out["queries" if route == "query" else "documents"] = max(worst)
    return out


def _time(folder: Path, towers: Towers, run: Run, start: NDArray[np.float32]) -> float:
    ids, mask = _read(folder, "query", towers.query, [_TIMED])
    return _milliseconds(lambda: run("query", ids, mask, start[:, :, :0]))


def _milliseconds(call: Callable[[], object]) -> float:
    """The median of a few calls after the first."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
