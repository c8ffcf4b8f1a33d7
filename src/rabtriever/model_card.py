"""The README.md of a saved model, generated from what its ``config.json`` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import yaml

from rabtriever.embedded_models import EMBEDDED
from rabtriever.hub import split_revision

if TYPE_CHECKING:
    from rabtriever.artifacts import ArtifactConfig

__all__ = ["model_card", "with_results"]

_STAGES = {"teacher": "Stage I, the teacher", "distill": "Stage III, the student"}

_SHOWN = ("R@1", "R@3", "R@5", "MRR@10", "nDCG@10", "ms_per_query", "queries")
"""Of an evaluation's figures, those that a card shows."""

_ABOUT = {
    "reranker": (
        "A teacher: a causal language model that reads a document and then a query, and answers whether the query can "
        "be appropriately responded to with the document. Its score is the log-odds of that answer; every pair costs "
        "one pass of the model."
    ),
    "retriever": (
        "A student, distilled from a reranker that reads document and query together. It encodes a document into one "
        "vector and a query into another; their inner product is the log-odds that the query can be appropriately "
        "responded to with the document. So exact inner-product search ranks as the student itself does. The folder "
        "loads as a reranker too, for reranking what was found."
    ),
}

_INTENDED = {
    "reranker": (
        "To order a few documents by how well they answer a query, where that takes reasoning rather than shared "
        "words; to be distilled into a retriever. It is not meant to state facts, to converse, or to decide about "
        "people alone."
    ),
    "retriever": (
        "To find the documents that answer a query, in a collection of any size, where that takes reasoning rather "
        "than shared words. Both texts should resemble those it was trained with. It is not a general measure of "
        "similarity: two queries, or two documents, cannot be compared. It is not meant to decide about people alone."
    ),
}

_USAGE = {
    "reranker": """```python
from rabtriever import Reranker

teacher = Reranker.from_pretrained("NAME")
documents = ["find a sponge", "open the window"]
print(teacher.score("I spilled my coke", documents))  # log-odds
```

```
rabtriever rerank NAME "I spilled my coke" documents.jsonl
```""",
    "retriever": """```python
from rabtriever import Retriever

student = Retriever.from_pretrained("NAME")
vectors = student.encode_document(["find a sponge", "open the window"])
query = student.encode_query(["I spilled my coke"])
print(student.similarity(query, vectors))  # log-odds
```

```
rabtriever index NAME corpus.jsonl -o INDEX
rabtriever search INDEX "I spilled my coke"
```""",
}


def model_card(config: ArtifactConfig, name: str) -> str:
    """The model card, as Markdown with YAML front matter.

    Args:
        config: What the model says about itself. Of ``config.training``, the keys ``teacher`` and ``distill`` (scalars,
            and ``config`` for the settings) and ``results`` (a list: of each evaluation, what ``rabtriever evaluate
            --json`` prints) are shown.
        name: What the model is called: the last part of its folder.
    """
    known, base = EMBEDDED.get(config.base.name), _base(config)
    front: dict[str, Any] = {"library_name": "rabtriever"}
    if known:
        front["license"] = known.license.lower()
    if known or "/" in base:
        front["base_model"] = known.hub_id if known else base
    front["pipeline_tag"] = "text-ranking" if config.kind == "reranker" else "feature-extraction"
    front["tags"] = ["rabtriever", "rationale-based-retrieval", config.kind]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}",
        _ABOUT[config.kind],
        "## Intended use",
        _INTENDED[config.kind],
        "## Use",
        _USAGE[config.kind].replace("NAME", name),
        *_results(config.training.get("results", [])),
        "## How it was made",
        _origin(config),
        *_stages(config.training),
        "## Limits",
        _limits(config),
    ]
    return "\n\n".join(parts) + "\n"


def with_results(card: str, config: ArtifactConfig) -> str:
    """A card with the results that the model has now; all else stays as it is, whoever wrote it.

    Args:
        card: The card as it stands.
        config: What the model says about itself.
    """
    fresh = "\n\n".join(_results(config.training.get("results", [])))
    lines = card.split("\n")
    heads = [number for number, line in enumerate(lines) if line.startswith("## ")]
    places = {lines[number].strip(): number for number in reversed(heads)}
    if "## Results" in places:
        start = places["## Results"]
        end = next((number for number in heads if number > start), len(lines))
    else:
        start = end = places.get("## How it was made", len(lines))
    return "\n".join([*lines[:start], fresh, "", *lines[end:]])


def _base(config: ArtifactConfig) -> str:
    """The base model's name; of a local folder, whose path means nothing elsewhere, only the last part."""
    name = config.base.name
    if not PurePath(name).is_absolute():
        return split_revision(name)[0]
    return PurePath(name).name


def _origin(config: ArtifactConfig) -> str:
    weights = "a LoRA adapter on the base model" if config.adapter else "a whole language model"
    rows = {
        "Base model": f"{_base(config)} ({config.base.architecture}, width {config.base.hidden_size})",
        "Base model's fingerprint": f"`{config.base.fingerprint}`",
        "Weights": weights
        + (" and a predictor" if config.predictor is not None else "")
        + (", and a LoRA adapter that queries are read with" if config.query_adapter else ""),
        "Made with": ", ".join(
            f"{package} {version}"
            for package, version in {"rabtriever": config.library_version, **config.versions}.items()
        ),
    }
    return _table(("", ""), rows.items())


def _stages(training: Mapping[str, Any]) -> Iterator[str]:
    """Each stage's facts as a table, and its settings as YAML."""
    for key, title in _STAGES.items():
        stage = training.get(key)
        if not isinstance(stage, Mapping):
            continue
        yield f"### {title}"
        if facts := _facts(stage):
            yield _table(("", ""), facts)
        if isinstance(start := stage.get("start"), Mapping):
            yield "Before its first step, at the inner product of the teacher's own states:"
            yield _table(("", ""), _facts(start))
        side = stage.get("query_side")
        if isinstance(side, Mapping):
            left = "" if side.get("kept", True) else " (no better than without it, so it was left out)"
            yield f"And the adapter that queries are read with, trained on their labels{left}:"
            yield _table(("", ""), _facts(side))
        if settings := stage.get("config"):
            yield f"```yaml\n{yaml.safe_dump(settings, sort_keys=False)}```"


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str | int | float]]:
    return [(name.replace("_", " "), value) for name, value in report.items() if isinstance(value, str | int | float)]


def _results(results: Any) -> Iterator[str]:
    """The table of each evaluation: one row per system, one column per measure."""
    known = [found for found in results if isinstance(found, Mapping) and found.get("systems")]
    if known:
        yield "## Results"
    for found in known:
        yield f"On {found.get('dataset')}, split {found.get('split')}, {found.get('queries')} queries:"
        rows = [(name, *(row.get(key, "") for key in _SHOWN)) for name, row in found["systems"].items()]
        yield _table(("", *_SHOWN), rows)


def _limits(config: ArtifactConfig) -> str:
    limits = [
        "It learned one kind of relevance from one dataset; judge it on your own queries before relying on it.",
        "A score is a log-odds among the wrong documents it was trained with: it orders documents well before its "
        "probabilities mean anything elsewhere.",
    ]
    for part in ("document", "query"):
        if longest := config.prompt.get(f"max_{part}_tokens"):
            limits.append(f"Of a {part}, at most {longest} tokens are read.")
    limits.append("It inherits its base model's languages, knowledge and biases, and its licence.")
    return "\n".join(f"- {limit}" for limit in limits)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    text = str(value)
    return text.replace("|", "\\|").replace("\n", " ")
