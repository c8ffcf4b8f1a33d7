"""Every hyper-parameter of both stages, in one place, checked when read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from rabtriever.predictor import PredictorConfig
from rabtriever.prompt import PromptConfig

__all__ = ["DistillConfig", "LoraConfig", "QuerySideConfig", "TeacherConfig", "TrainConfig"]

_POLICIES = {
    "teacher": ("all", "random", "mined", "bm25", "mixed", "balanced", "judged"),
    "distill": ("all", "random", "on-policy"),
}


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _check_policy(value: str, kinds: tuple[str, ...]) -> str:
    kind, _, count = value.partition(":")
    if kind not in kinds or (kind == "all") == bool(count) or (count and not (count.isdigit() and int(count) > 0)):
        choices = ", ".join(name if name == "all" else f"{name}:K" for name in kinds)
        raise ValueError(f"expected one of {choices} with K a positive number, got {value!r}")
    return value


class LoraConfig(_Config):
    """Low-rank adapters on all linear maps of the trained layers.

    Example:
        >>> LoraConfig(rank=8).alpha
        32
    """

    rank: int = Field(16, ge=1, description="Rank of each adapter.")
    alpha: int = Field(32, ge=1, description="Adapters are scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout on the adapters' input.")


class TeacherConfig(_Config):
    """Stage I: fine-tune the language model to answer ``<T>`` or ``<F>``.

    Example:
        >>> TeacherConfig(candidates="mined:4").objective
        'sft'
    """

    objective: Literal["sft", "dpo"] = Field(
        "sft", description="Cross-entropy on the answer, or DPO on right and wrong."
    )
    ranking_weight: float = Field(
        1.0, ge=0.0, description="Weight of a softmax over each query's documents; 0 is the paper's objective alone."
    )
    apart_weight: float = Field(
        1.0,
        ge=0.0,
        description="Weight of a contrastive term on queries and documents read apart, as the student reads them; "
        "0 trains the teacher alone.",
    )
    apart_queries: int = Field(
        8,
        ge=0,
        description="Further queries a step, each with a right document, that are read apart only; none where "
        "apart_weight is 0.",
    )
    dpo_beta: float = Field(0.1, gt=0.0, description="DPO's temperature.")
    lora: LoraConfig | None = Field(None, description="Train adapters; null trains the weights themselves.")
    freeze_layers: int = Field(12, ge=0, description="This many of the lowest layers stay as they are.")
    candidates: str = Field(
        "balanced:5",
        description="Wrong documents per query: all, random:K, mined:K, bm25:K, mixed:K (half BM25's, half random), "
        "balanced:K (half BM25's, the others as often as they are right elsewhere), or judged:K (the same with those "
        "judged wrong, by a score of 0, for BM25's).",
    )
    queries_per_step: int = Field(2, ge=1, description="Queries whose pairs make one optimiser step.")
    batch_tokens: int = Field(
        4096, ge=1, description="Padded tokens that go through the model at once; a query's documents stay together."
    )
    learning_rate: float = Field(2e-4, gt=0.0, description="Peak learning rate; adapters usually need a higher one.")
    warmup: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the steps that warm up.")
    weight_decay: float = Field(0.01, ge=0.0, description="AdamW's decay.")
    max_grad_norm: float = Field(1.0, gt=0.0, description="Gradients are clipped to this norm.")
    epochs: float = Field(2.0, gt=0.0, description="Passes over the training queries.")
    max_queries: int | None = Field(None, ge=1, description="At most this many training queries, drawn by seed.")
    evaluations: int = Field(2, ge=0, description="How often dev MRR is measured on the way; the best state is kept.")
    patience: int = Field(2, ge=1, description="Evaluations without a better dev MRR before training stops.")
    dev_queries: int = Field(32, ge=1, description="Dev queries, drawn by seed, in each evaluation.")
    dev_candidates: int = Field(
        16,
        ge=2,
        description="Documents per dev query: the right ones and others, half of them hard if candidates draws such.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_apart_queries_without_their_term(cls, values: Any) -> Any:
        off = isinstance(values, dict) and not values.get("apart_weight", True)
        return {"apart_queries": 0} | values if off else values

    @model_validator(mode="after")
    def _apart_queries_need_their_term(self) -> TeacherConfig:
        if self.apart_queries and not self.apart_weight:
            raise ValueError("apart_queries are read for apart_weight, which is 0; set it above 0 or leave them out")
        return self

    @field_validator("candidates")
    @classmethod
    def _policy(cls, value: str) -> str:
        return _check_policy(value, _POLICIES["teacher"])


class QuerySideConfig(_Config):
    """After stage III: an adapter that queries alone are read with, trained on labels.

    Example:
        >>> QuerySideConfig(epochs=2).lora.rank
        16
    """

    lora: LoraConfig = Field(LoraConfig(), description="The adapters.")
    freeze_layers: int = Field(12, ge=0, description="This many of the lowest layers have none.")
    learning_rate: float = Field(3e-4, gt=0.0, description="Peak learning rate of the adapters.")
    predictor_rate: float = Field(1e-4, gt=0.0, description="Peak learning rate of the predictor, which learns along.")
    warmup: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the steps that warm up.")
    weight_decay: float = Field(0.01, ge=0.0, description="AdamW's decay.")
    epochs: float = Field(1.0, gt=0.0, description="Passes over the training queries.")
    max_queries: int | None = Field(None, ge=1, description="At most this many training queries, drawn by seed.")
    batch_queries: int = Field(16, ge=1, description="Queries per step.")
    evaluations: int = Field(4, ge=1, description="How often dev MRR is measured on the way; the best state is kept.")


class DistillConfig(_Config):
    """Stage III: train the predictor on what the teacher says of pairs.

    Example:
        >>> DistillConfig(candidates="on-policy:8").kl
        'reverse'
    """

    predictor: PredictorConfig = Field(PredictorConfig(), description="The predictor (Eq. 12) and its variants.")
    start: Literal["auto", "states", "zero"] = Field(
        "auto",
        description="Where a predictor with a rank begins: at the inner product of the teacher's own states, or at "
        "nothing; auto is the first for a teacher that has learnt to read apart, whose states find much already.",
    )
    candidates: str = Field(
        "random:16", description="Documents per query beside the right ones: all, random:K, on-policy:K."
    )
    max_queries: int | None = Field(None, ge=1, description="At most this many training queries, drawn by seed.")
    unjudged_queries: int = Field(
        0,
        ge=0,
        description="So many more of the dataset's queries, of those without judgements: the teacher labels them.",
    )
    labelled_queries: int = Field(
        0,
        ge=0,
        description="So many more training queries, drawn by seed from those beyond max_queries, teach by their labels "
        "alone: one pass each, none of the teacher's.",
    )
    kl_weight: float = Field(1.0, ge=0.0, description="w of Eq. 13.")
    mse_weight: float = Field(1.0, ge=0.0, description="Weight of the embedding term; 0 leaves it out.")
    ranking_weight: float = Field(
        1.0, ge=0.0, description="Weight of the divergence over each query's documents; 0 is the paper's loss alone."
    )
    label_weight: float = Field(
        1.0,
        ge=0.0,
        description="Weight of the labels: a softmax over the whole corpus; 0 learns from the teacher alone.",
    )
    kl: Literal["reverse", "forward"] = Field("reverse", description="Direction of both divergences.")
    vocabulary: bool = Field(False, description="Divergence over the whole vocabulary instead of the two answers.")
    mse_positions: Literal["last", "all"] = Field(
        "last",
        description="The embedding error at the answer's position alone, or at all of the query part, for which the "
        "teacher reads its pairs anew and a hundred times as much is stored.",
    )
    normalize_target: bool = Field(True, description="Divide the embedding error by each dimension's deviation.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="What the MLP's products are computed in; its weights stay float32. bfloat16 pays in steps of many "
        "queries, where the processor has it.",
    )
    learning_rate: float | None = Field(
        None, gt=0.0, description="Peak learning rate; null is 1e-4 from the teacher's states on, 1e-3 from nothing."
    )
    weight_decay: float = Field(0.01, ge=0.0, description="AdamW's decay.")
    warmup: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the steps that warm up.")
    batch_queries: int = Field(16, ge=1, description="Queries per step, each with all of its pairs.")
    epochs: int = Field(30, ge=1, description="Passes over the pairs.")
    refresh_epochs: int = Field(10, ge=1, description="on-policy: epochs between two draws of candidates.")
    patience: int | None = Field(
        None,
        ge=1,
        description="Epochs without a better dev MRR before training stops; null goes through them all and keeps the "
        "best. The last epochs, at low rates, often are, after ten that were not.",
    )
    dev_queries: int = Field(100, ge=1, description="Dev queries, drawn by seed.")
    query_side: QuerySideConfig | None = Field(
        None,
        description="Train an adapter that queries alone are read with, from the student on; null leaves it out. "
        "Documents' vectors and the teacher stay as they are.",
    )

    @property
    def every_position(self) -> bool:
        """Whether the embedding error is learnt from at every position of the query part."""
        return self.mse_positions == "all" and self.mse_weight > 0

    @field_validator("candidates")
    @classmethod
    def _policy(cls, value: str) -> str:
        return _check_policy(value, _POLICIES["distill"])


class TrainConfig(_Config):
    """All that ``rabtriever train`` needs beside a dataset.

    Example:
        >>> TrainConfig(seed=1).base
        'smollm2-135m'
    """

    base: str = Field("smollm2-135m", description="The base model: an embedded name, a folder or a hub id.")
    seed: int = Field(0, ge=0, description="Seeds every draw.")
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = Field("auto", description="What the model computes in.")
    prompt: PromptConfig = Field(PromptConfig(), description="The instruction (Eq. 7).")
    teacher: TeacherConfig = Field(TeacherConfig(), description="Stage I.")
    distill: DistillConfig = Field(DistillConfig(), description="Stage III.")
