"""The folder of a student that was exported as a graph: what is in it, and how the graph is run.

Neither torch nor transformers is needed here: a folder is read, and queries are answered, within a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from rabtriever.embedded_models import cache_dir
from rabtriever.errors import DataError, InputError, package_missing
from rabtriever.files import read_json
from rabtriever.prompt_parts import PromptParts
from rabtriever.shipped import model_place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.numerics import DType

__all__ = [
    "GRAPH",
    "MARKER",
    "PIPELINE",
    "START",
    "GraphConfig",
    "Run",
    "Runtime",
    "open_graph",
    "query_graph",
    "read_start",
]

MARKER = "rabtriever_export.json"
"""The file at the top of every exported folder, by which a former export is told from a folder of something else."""

PIPELINE = "tokenizer.json"
"""Turns a text into ids, without the prompt: that is in the marker."""

Runtime = Literal["onnx", "openvino"]
GRAPH: dict[Runtime, str] = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}

START = "document_start.safetensors"
"""Keys and values of what every document begins with: read once, when the graph was made."""

Run = Callable[[str, "NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.float32]"], "NDArray[np.float32]"]
"""(``query`` or ``document``, ids ``(n, L)``, attention mask ``(n, L)``, keys and values of what comes before in every
row ``(2 layers, heads, L', d_head)``) -> vectors ``(n, k)``."""

_FORMAT: Literal[5] = 5


class GraphConfig(BaseModel):
    """What the marker of an exported graph holds.

    Args:
        format_version: Of the folder's layout.
        kind: The runtime that the graph is for.
        source: The model that it was made from, as it was given: its teacher reranks.
        relative_source: The same seen from this folder, so that both may move together.
        fingerprint: The student's: an index of the model is an index of its export.
        document_fingerprint: Of what its documents' vectors depend on.
        teacher_fingerprint: The teacher's.
        prompt_hash: The prompt's.
        dimension: Width of the vectors.
        bias: What is added to an inner product to make it the log-odds.
        own_query_graph: Whether queries have a graph of their own, which :func:`query_graph` names.
        prompts: What each side's own tokenizer file wants before every text.
        parts: The prompt.
        differences: What the export measured about itself, in float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[5] = _FORMAT
    kind: Runtime
    source: str
    relative_source: str | None
    fingerprint: str
    document_fingerprint: str
    teacher_fingerprint: str
    prompt_hash: str
    dimension: int = Field(ge=1)
    bias: FiniteFloat
    own_query_graph: bool
    prompts: dict[str, str]
    parts: PromptParts
    differences: dict[str, float]

    @classmethod
    def read(cls, folder: Path) -> GraphConfig:
        """Read and check a folder's marker.

        Raises:
            InputError: It is an export of another kind, or of an older or newer version of this package.
            DataError: The file is malformed.
        """
        path = folder / MARKER
        content = read_json(path)
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind is not None and kind not in GRAPH:
            raise InputError(
                f"{folder} is an export for {kind}, which this package does not run",
                hint="give the model that it was made from, or export that with --to openvino",
            )
        if isinstance(content, dict) and content.get("format_version") != _FORMAT:
            raise InputError(
                f"{path}: format_version is {content.get('format_version')!r}, and this Rabtriever reads {_FORMAT}",
                hint="export the model again: rabtriever export MODEL OUT --to openvino",
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "the file"
            raise DataError(f"{path}: {key} is wrong: {first['msg']}", hint="export the model again") from None

    def source_folder(self, folder: Path) -> str:
        """Where the model that this was made from is now; the name it was given where it is in neither place."""
        return model_place(self.source, self.relative_source, folder) or self.source


def read_start(folder: Path) -> NDArray[np.float32]:
    """Keys and values of what every document begins with, ``(2 layers, heads, L', d_head)``.

    Raises:
        DataError: The file is missing or malformed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / START
    try:
        start: NDArray[np.float32] = load_file(path)["states"]
    except (OSError, KeyError, SafetensorError) as error:
        raise DataError(f"{path} does not load: {error}", hint="export the model again") from None
    return start


def query_graph(runtime: Runtime) -> str:
    """The file of the queries' own graph, where they have one.

    Example:
        >>> query_graph("onnx")
        'query_model.onnx'
    """
    return f"query_{GRAPH[runtime]}"


def open_graph(folder: Path, runtime: Runtime, dtype: DType = "float32", own_query: bool = False) -> Run:
    """Load a graph, or the two of a folder in which queries have their own.

    Args:
        folder: Where it is.
        runtime: What it is for.
        dtype: What it computes in; ``auto`` takes bfloat16 where the runtime and the processor multiply it natively.
        own_query: Whether queries have a graph of their own.

    Raises:
        InputError: The runtime is not installed (code ``missing_package``), the file does not load, or it does not
            compute in this dtype.

    Example:
        >>> run = open_graph(Path("exported"), "openvino", "auto")       # doctest: +SKIP
    """
    both = _open(folder / GRAPH[runtime], runtime, dtype)
    if not own_query:
        return both
    runs = {"document": both, "query": _open(folder / query_graph(runtime), runtime, dtype)}
    return lambda route, ids, mask, start: runs[route](route, ids, mask, start)


def _open(path: Path, runtime: Runtime, dtype: DType) -> Run:
    load = _onnx if runtime == "onnx" else _openvino
    try:
        return load(path, dtype)
    except ModuleNotFoundError as error:
        raise package_missing(str(path.parent), error, runtime) from None
    except InputError:
        raise
    except Exception as error:  # each runtime has classes of its own, without a common base
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path} does not load: {reason}", hint="export the model again") from error


def _onnx(path: Path, dtype: DType) -> Run:
    import onnxruntime

    if dtype not in ("auto", "float32"):
        raise InputError(f"ONNX Runtime computes this graph in float32, not {dtype}", hint="leave dtype out")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(
        route: str, ids: NDArray[np.int64], mask: NDArray[np.int64], start: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        inputs = {"input_ids": ids, "attention_mask": mask, "start": start}
        return np.asarray(session.run([route], inputs)[0], np.float32)

    return run


def _openvino(path: Path, dtype: DType) -> Run:
    import openvino

    core = openvino.Core()
    precisions: dict[str, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
    if dtype == "auto":
        able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precisions["auto"] = "bf16" if able else "f32"
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precisions[dtype],
        "PERFORMANCE_HINT": "LATENCY",
        # The compiled form without the weights, two megabytes: with it the graph loads five times faster.
        "CACHE_DIR": str(cache_dir() / "openvino"),
        "CACHE_MODE": "OPTIMIZE_SIZE",
    }
    compiled = core.compile_model(str(path), "CPU", settings)
    lock = threading.Lock()  # a request is one thread's at a time, and one keeps both cores busy

    def run(
        route: str, ids: NDArray[np.int64], mask: NDArray[np.int64], start: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        with lock:
            return np.array(compiled({"input_ids": ids, "attention_mask": mask, "start": start})[route], np.float32)

    return run
