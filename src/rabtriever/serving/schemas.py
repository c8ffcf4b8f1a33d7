"""What the project's own part of the API takes and gives; unknown fields are refused, so that no misspelling passes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, StrictBool
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from rabtriever.serving.texts import Text

__all__ = [
    "Added",
    "Deleted",
    "DocumentIn",
    "DocumentOut",
    "Documents",
    "ErrorAnswer",
    "ExplanationOut",
    "HitOut",
    "Milliseconds",
    "RationaleAnswer",
    "RationaleRequest",
    "SearchAnswer",
    "SearchRequest",
    "Status",
]


class SearchRequest(BaseModel):
    """A search."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "I spilled my coke", "k": 3, "rerank": 10}]}
    )

    query: Text = Field(min_length=1, description="What is to be answered.")
    k: Annotated[int, Field(strict=True, ge=1, description="How many hits to return.")] = 10
    rerank: Annotated[int, Field(strict=True, ge=0, description="The teacher orders so many of the best anew.")] = 0
    filter: Text | None = Field(
        None, max_length=2000, description="Which documents take part, as in `room = 'kitchen' and floor < 3`."
    )
    hybrid: StrictBool | Annotated[FiniteFloat, Field(ge=0)] | Literal["ranks"] = Field(
        False,
        description="Order by the student's log-odds plus half of BM25's score; a number instead of `true` is another "
        "share, and `ranks` fuses by reciprocal ranks.",
    )
    bm25: bool = Field(False, description="The order of BM25 alone, to compare with; excludes `hybrid`.")
    threshold: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = Field(
        None, description="Only hits of at least this probability."
    )
    explain: bool = Field(
        False, description="Say which dimensions made the student's score; the hits are read by the model once more."
    )


class RationaleRequest(BaseModel):
    """A query, and the document that was found for it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": "I spilled my coke", "id": "sponge"}]}
    )

    query: Text = Field(min_length=1, description="What is to be answered.")
    id: Text = Field(min_length=1, max_length=512, description="A stored document's id.")


class RationaleAnswer(TypedDict):
    """A sentence that a language model generated, and the teacher's probability that it explains."""

    id: str
    probability: float
    rationale: str
    generated_by: str


class DocumentIn(BaseModel):
    """A document to store."""

    model_config = ConfigDict(extra="forbid")

    id: Text = Field(min_length=1, max_length=512, description="Unique in the index; the same id again replaces.")
    text: Text = Field(description="What is searched and shown.")
    title: Text = Field("", description="Read before the text, where there is one.")
    metadata: dict[Text, JsonValue] = Field(default_factory=dict, description="Anything else, for filters.")


class Documents(BaseModel):
    """Documents to store: all of them, or none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"documents": [{"id": "sponge", "text": "find a sponge"}]}]},
    )

    documents: list[DocumentIn] = Field(min_length=1)


class DocumentOut(TypedDict):
    """A stored document."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]


class Added(TypedDict):
    """What became of the documents, and how many the index holds now."""

    added: int
    updated: int
    unchanged: int
    documents: int


class Deleted(TypedDict):
    """How many documents were deleted, and how many the index holds now."""

    deleted: int
    documents: int


class ShareOut(TypedDict):
    """What one dimension adds to the log-odds."""

    dimension: int
    query: float
    document: float
    contribution: float


class ExplanationOut(TypedDict):
    """The student's log-odds as a sum: `bias` + the contributions + `rest`."""

    log_odds: float
    probability: float
    bias: float
    dimensions: list[ShareOut]
    rest: float


class HitOut(TypedDict):
    """A document found. `score` is log-odds and `probability` their sigmoid, both of the `stage` named."""

    id: str
    score: float
    probability: float
    title: str
    text: str
    metadata: dict[str, Any]
    stage: Literal["student", "teacher"]
    span: list[int] | None
    student_rank: int
    student_score: float
    explanation: ExplanationOut | None


class Milliseconds(TypedDict):
    """What the two stages cost, waiting included."""

    search: float
    rerank: float


class SearchAnswer(TypedDict):
    """The hits, best first."""

    query: str
    hits: list[HitOut]
    milliseconds: Milliseconds


class Status(TypedDict):
    """How the server is."""

    status: str
    documents: int
    queued_texts: int
    rationales: bool


class Error(TypedDict):
    """What went wrong."""

    code: str
    message: str
    hint: str


class ErrorAnswer(TypedDict):
    """Every error has this form."""

    error: Error
