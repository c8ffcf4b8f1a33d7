"""What other services' clients send and expect; fields that only those services know are passed over."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from rabtriever.serving.texts import Text

__all__ = [
    "EmbeddingOut",
    "EmbeddingsAnswer",
    "EmbeddingsRequest",
    "ModelOut",
    "ModelsAnswer",
    "RerankAnswer",
    "RerankRequest",
    "RerankResult",
    "TextsRerankRequest",
    "TextsRerankResult",
]


class RerankText(BaseModel):
    """A document given as an object."""

    text: Text


class RerankRequest(BaseModel):
    """A rerank request as Cohere's and Jina's clients send it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "I spilled my coke", "documents": ["find a sponge", "open a door"]}]}
    )

    query: Text = Field(min_length=1)
    documents: list[Text | RerankText] = Field(min_length=1)
    top_n: Annotated[int, Field(strict=True, ge=1)] | None = None
    return_documents: bool = False
    model: Text | None = None


class TextOut(TypedDict):
    """A document, sent back."""

    text: str


class RerankResult(TypedDict):
    """A document's place in the request, and the probability that it answers the query."""

    index: int
    relevance_score: float
    document: NotRequired[TextOut]


class Usage(TypedDict):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(TypedDict):
    """As Cohere's answers name it."""

    version: str


class Meta(TypedDict):
    """As Cohere's answers have it."""

    api_version: ApiVersion


class RerankAnswer(TypedDict):
    """The documents, best first."""

    id: str
    model: str
    results: list[RerankResult]
    meta: Meta


class TextsRerankRequest(BaseModel):
    """A rerank request as text-embeddings-inference takes it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "I spilled my coke", "texts": ["find a sponge", "open a door"]}]}
    )

    query: Text = Field(min_length=1)
    texts: list[Text] = Field(min_length=1)
    raw_scores: bool = Field(False, description="Log-odds in place of probabilities.")
    return_text: bool = False


class TextsRerankResult(TypedDict):
    """A text's place in the request, and its score."""

    index: int
    score: float
    text: NotRequired[str]


class EmbeddingsRequest(BaseModel):
    """An embeddings request as OpenAI's clients send it, with one field more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["I spilled my coke"], "input_type": "query"}]})

    input: Text | Annotated[list[Text], Field(min_length=1)]
    model: Text | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(strict=True, ge=1)] | None = Field(None, description="As the model has, or none.")
    input_type: Literal["query", "document"] = Field(
        "document", description="Queries and documents have different vectors; their inner product is the log-odds."
    )


class EmbeddingOut(TypedDict):
    """A vector: numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(TypedDict):
    """The vectors, in the order of the texts."""

    object: Literal["list"]
    data: list[EmbeddingOut]
    model: str
    usage: Usage


class ModelOut(TypedDict):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsAnswer(TypedDict):
    """The models that are served."""

    object: Literal["list"]
    data: list[ModelOut]
