"""The student as one graph, for ONNX Runtime or OpenVINO: ids go in, a query and a document vector come out.

Both towers share the backbone, and what follows it costs next to nothing, so one graph gives both vectors and the
weights are stored once. Who runs it takes the vector of the part of the prompt that the ids were written for. Texts
become ids by the ``tokenizers`` library alone: each tower's file carries its part of the prompt.

The graph is traced by transformers' own exporters (optimum's want older versions of transformers).
"""

from __future__ import annotations

import io
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rabtriever.export.modules import document_layers, query_layers
from rabtriever.export.report import MARKER, ExportReport, difference, folder_bytes, require_packages, same_ids
from rabtriever.export.towers import Towers, read_probes
from rabtriever.files import atomic_folder, check_replaceable, write_json, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.export.report import Probe
    from rabtriever.export.tokenizer import TowerTokenizer
    from rabtriever.retriever import Retriever

__all__ = ["Runtime", "export_graph"]

Runtime = Literal["onnx", "openvino"]
Run = Callable[[str, "NDArray[np.int64]", "NDArray[np.int64]"], "NDArray[np.float32]"]
"""(route, ids ``(n, L)``, attention mask ``(n, L)``) -> vectors ``(n, k)``."""

GRAPH = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
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
        _trace(student, folder / GRAPH[runtime], runtime)
        run = _RUN[runtime](folder / GRAPH[runtime])
        differences = _compare(folder, towers, read_probes(student, towers), run)
        times = {
            "rabtriever": _milliseconds(lambda: student.encode_query([_TIMED])),
            "export": _time(folder, towers, run),
        }
        prompts = {"query": towers.query.prompt, "document": towers.document.prompt}
        facts = {"bias": student.bias, "fingerprint": student.fingerprint, "prompts": prompts}
        readme = graph_readme(
            output.name, runtime, student.dimension, student.bias, prompts, differences, towers.notes()
        )
        write_text(folder / "README.md", readme)
        write_json(folder / MARKER, {"format_version": 1, "kind": runtime, **facts, "differences": differences})
        size = folder_bytes(folder)
    return ExportReport(output, runtime, differences, size, towers.notes(), times)


def _dense(layers: list[tuple[Tensor, Tensor]]) -> nn.Sequential:
    """The layers, with a ReLU after each but the last."""
    parts: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = weight, bias
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def _whole(student: Retriever) -> Any:
    """Backbone, the state of each text's last token, and both towers' layers, as the exporters want it."""
    from transformers import PreTrainedModel

    predictor, blocks = student.predictor, student.reranker.backbone.blocks

    class Student(PreTrainedModel):  # type: ignore[no-untyped-call]  # transformers types not all of itself
        """As far as its attention goes, it is what its backbone is."""

        _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

        def __init__(self) -> None:
            super().__init__(blocks.config)  # type: ignore[arg-type]
            self.blocks = blocks
            self.query = _dense(query_layers(predictor, student.reranker.rows.direction))
            self.document = _dense(document_layers(predictor))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            states = self.blocks(**inputs, use_cache=False).last_hidden_state
            last = attention_mask.sum(1) - 1  # texts are padded on the right
            state = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
            # Not the state itself: an output that is nothing but another node's would lose its name.
            return {"query": self.query(state), "document": self.document(state) + 0.0}

    return Student().train(False)


def _trace(student: Retriever, path: Path, runtime: Runtime) -> None:
    from torch.export import Dim

    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 0, 0]])
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    axes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    options: dict[str, Any] = {"dynamic": True, "dynamic_shapes": {"input_ids": axes, "attention_mask": axes}}
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
        exported = exporter.export(_whole(student), {"input_ids": ids, "attention_mask": mask}, config=config)
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


def _onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(route: str, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(session.run([route], {"input_ids": ids, "attention_mask": mask})[0], np.float32)

    return run


def _openvino(path: Path) -> Run:
    import openvino

    compiled = openvino.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(route: str, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.array(compiled({"input_ids": ids, "attention_mask": mask})[route], np.float32)

    return run


_RUN: dict[Runtime, Callable[[Path], Run]] = {"onnx": _onnx, "openvino": _openvino}


def _read(folder: Path, route: str, tower: TowerTokenizer, texts: list[str]) -> tuple[Any, Any]:
    """Ids and attention mask ``(n, L)``, as the README tells users to make them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / route / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    rows = tokenizer.encode_batch([tower.prompt + text for text in texts])
    return np.array([row.ids for row in rows]), np.array([row.attention_mask for row in rows])


def _compare(folder: Path, towers: Towers, expected: dict[str, Probe], run: Run) -> dict[str, float]:
    """Each probe's ids, and its vector alone and in a batch."""
    out = {}
    for route, tower in (("query", towers.query), ("document", towers.document)):
        probe = expected[route]
        ids, mask = _read(folder, route, tower, probe.texts)
        for text, row, kept, wanted in zip(probe.texts, ids, mask, probe.ids, strict=True):
            same_ids(route, text, row[kept == 1].tolist(), wanted)
        alone = [run(route, row[kept == 1][None], kept[kept == 1][None]) for row, kept in zip(ids, mask, strict=True)]
        name = f"{route} vectors"
        worst = [difference(name, found, probe.vectors) for found in (run(route, ids, mask), np.concatenate(alone))]
        out["queries" if route == "query" else "documents"] = max(worst)
    return out


def _time(folder: Path, towers: Towers, run: Run) -> float:
    ids, mask = _read(folder, "query", towers.query, [_TIMED])
    return _milliseconds(lambda: run("query", ids, mask))


def _milliseconds(call: Callable[[], object]) -> float:
    """The median of a few calls after the first."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)
