"""The README.md of an exported folder: how to use it, and what is and is not the same as in the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import yaml

from rabtriever.files import human_bytes
from rabtriever.graph_folder import GRAPH, query_graph

if TYPE_CHECKING:
    from rabtriever.graph_folder import GraphConfig

__all__ = ["Storage", "graph_readme", "student_readme", "teacher_readme"]

_STUDENT = """# {name}

A student of a language model that reads document and query together, as a
[sentence-transformers](https://www.sbert.net) model, for version 5.7 or newer. It needs neither Rabtriever nor remote
code.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
documents = model.encode_document(["find a sponge", "close the drawer"])
queries = model.encode_query(["I spilled my coke"])
scores = model.similarity(queries, documents){bias_code}
```

Vectors have {dimension} dimensions, {size} each. Search by inner product and *without normalising*: the lengths are
part of the score. `encode` without a task is refused, since queries and documents are read differently.

## Scores

{bias} The sigmoid of the log-odds is the probability of relevance.
"""

Storage = Literal["linked", "copied", "own"]
"""How both towers' weights stand in the folder: once, twice, or each its own."""

_STORAGE: dict[Storage, str] = {
    "linked": "The weights of the backbone stand in the folder once: both towers' files are hard links to them. A copy "
    "of the folder may hold them twice (`cp -a` and `rsync -H` do not).",
    "copied": "The weights of the backbone stand in the folder twice, once for each tower: this file system has no "
    "hard links.",
    "own": "Each tower has weights of its own: queries are read with an adapter, merged into the query tower's.",
}

_MEMORY = """In memory they are loaded twice. To share them:

```python
query, document = (model[0].sub_modules[route][0] for route in ("query", "document"))
query.model = document.model
```"""

_TEACHER = """# {name}

A language model that reads document and query together, as a cross-encoder of
[sentence-transformers](https://www.sbert.net), for version 5.7 or newer. It needs neither Rabtriever nor remote code.

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("{name}")
pairs = [("I spilled my coke", "find a sponge"), ("I spilled my coke", "close the drawer")]
print(model.predict(pairs))  # log-odds; their sigmoid is the probability of relevance
```

Pairs are (query, document); the model reads the document first. The head's two answer rows have become one dense layer,
after the state of the last token.
"""


_GRAPH = """# {name}

A student of a language model that reads document and query together, as one graph for {runtime}. It needs neither
Rabtriever nor torch.

```python
import numpy as np
{load}
from tokenizers import Tokenizer

{open}
prompts = {prompts}
tokenizers = {{side: Tokenizer.from_file(f"{name}/{{side}}/tokenizer.json") for side in ("query", "document")}}
for tokenizer in tokenizers.values():
    tokenizer.encode_special_tokens = True  # what users write is text, even where it spells a control token
start = np.zeros({start}, np.float32)  # keys and values of what was read before: nothing


def encode(side, texts):
    rows = tokenizers[side].encode_batch([prompts[side] + text for text in texts])
    ids, mask = (np.array([getattr(row, key) for row in rows]) for key in ("ids", "attention_mask"))
    return {run}


documents = encode("document", ["find a sponge", "close the drawer"])
queries = encode("query", ["I spilled my coke"])
scores = queries @ documents.T{bias_code}
```

Vectors have {dimension} dimensions, {size} each. Search by inner product and *without normalising*: the lengths are
part of the score. {graphs}

## Scores

{bias} The sigmoid of the log-odds is the probability of relevance.
"""

_RUNTIMES = {
    "onnx": {
        "runtime": "[ONNX Runtime](https://onnxruntime.ai)",
        "load": "import onnxruntime",
        "before": "",
        "variable": "session",
        "graph": 'onnxruntime.InferenceSession("{file}")',
        "run": '{graph}.run([side], {{"input_ids": ids, "attention_mask": mask, "start": start}})[0]',
    },
    "openvino": {
        "runtime": "[OpenVINO](https://docs.openvino.ai)",
        "load": "import openvino",
        "before": "# without the hint, processors that have bfloat16 compute in it: faster, and less exact\n",
        "variable": "model",
        "graph": 'openvino.compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})',
        "run": 'np.array({graph}({{"input_ids": ids, "attention_mask": mask, "start": start}})[side])',
    },
}


_ONE_GRAPH = "The graph always gives both vectors; take the one of the side that the text was tokenised for."
_TWO_GRAPHS = "Queries have a graph of their own: they are read with an adapter, which is merged into its weights."


def graph_readme(name: str, config: GraphConfig, notes: Sequence[str], start: Sequence[int]) -> str:
    """The README of a student that was exported as a graph.

    Args:
        name: The folder's name.
        config: What the folder's marker holds.
        notes: What differs from the model.
        start: The shape of the keys and values of what every document begins with.

    Example:
        >>> "onnxruntime" in graph_readme("m", config, [], (4, 1, 5, 8))     # doctest: +SKIP
        True
    """
    words = _RUNTIMES[config.kind]
    code = f" + {config.bias!r}  # log-odds" if config.bias else "  # log-odds"
    said = "The inner product is the log-odds" + (f" less the head's bias, {config.bias!r}." if config.bias else ".")
    document, query = (
        words["graph"].format(file=f"{name}/{file}") for file in (GRAPH[config.kind], query_graph(config.kind))
    )
    if config.own_query_graph:
        graph, opened = "graphs[side]", f'graphs = {{\n    "query": {query},\n    "document": {document},\n}}'
    else:
        graph, opened = words["variable"], f"{words['variable']} = {document}"
    body = _GRAPH.format(
        name=name,
        runtime=words["runtime"],
        load=words["load"],
        open=words["before"] + opened,
        run=words["run"].format(graph=graph),
        graphs=_TWO_GRAPHS if config.own_query_graph else _ONE_GRAPH,
        prompts=ascii(dict(config.prompts)),
        start=(*start[:2], 0, *start[3:]),
        dimension=config.dimension,
        size=human_bytes(4 * config.dimension),
        bias=said,
        bias_code=code,
    )
    return "\n".join([_front("sentence-similarity", config.kind), body, _fidelity(config.differences, notes)])


def student_readme(
    name: str, dimension: int, bias: float, differences: Mapping[str, float], notes: Sequence[str], *, storage: Storage
) -> str:
    """The README of an exported student.

    Args:
        name: The folder's name.
        dimension: Width of the vectors.
        bias: What turns similarities into log-odds.
        differences: What the export measured about itself.
        notes: What differs from the model.
        storage: How both towers' weights stand in the folder.

    Example:
        >>> print(student_readme("m", 8, 0.0, {"queries": 1e-6}, [], storage="linked")[:8])
        ---
        libr
    """
    said = (
        f"`similarity` gives the log-odds less the constant {bias!r}, the head's bias: add it to "
        "get the log-odds. It is the same for every document, so rankings do not depend on it."
        if bias
        else "`similarity` gives the log-odds: this model's head has no bias to add."
    )
    code = f" + {bias!r}  # log-odds" if bias else "  # log-odds"
    body = _STUDENT.format(name=name, dimension=dimension, size=human_bytes(4 * dimension), bias=said, bias_code=code)
    memory = "" if storage == "own" else f" {_MEMORY}"
    stored = f"## Storage\n\n{_STORAGE[storage]}{memory}\n"
    return "\n".join([_front("sentence-similarity", "feature-extraction"), body, _fidelity(differences, notes), stored])


def teacher_readme(name: str, differences: Mapping[str, float], notes: Sequence[str]) -> str:
    """The README of an exported teacher.

    Example:
        >>> "CrossEncoder" in teacher_readme("m", {"log-odds": 1e-6}, [])
        True
    """
    return "\n".join(
        [_front("text-ranking", "cross-encoder"), _TEACHER.format(name=name), _fidelity(differences, notes)]
    )


def _front(pipeline: str, kind: str) -> str:
    library = kind if kind in _RUNTIMES else "sentence-transformers"
    tags = [library, "rabtriever", "rationale-based-retrieval", *([] if kind == library else [kind])]
    front = {"library_name": library, "pipeline_tag": pipeline, "tags": tags}
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"


def _fidelity(differences: Mapping[str, float], notes: Sequence[str]) -> str:
    measured = ", ".join(f"{what} {worst:.0e}" for what, worst in differences.items())
    lines = [
        f"Compared with Rabtriever in float32 when this folder was written; largest difference, of the largest number: "
        f"{measured}. Not the same:",
        "",
        *(f"- {note}" for note in notes),
        "- A lone surrogate, which is no Unicode character, is an error here; Rabtriever reads it as a question mark.",
    ]
    return "## The same numbers\n\n" + "\n".join(lines) + "\n"
