"""The student's predictor (Eq. 12) and its fold into one inner product.

The paper's student predicts the teacher's hidden state for a (query, document) pair from the two encoded apart::

    p = MLP(e_Q)                 query side,    (m, k)
    v = document(e_D)            document side, (n, k)
    e_student = U(p * v)         element-wise,  (d,)

The paper's own predictor (`rank=None`) has `k = d`, `document(e_D) = e_D` and no `U`. Everything after the product is
linear, so the log-odds `direction . e_student` of any linear head folds into `fold(e_Q) . document(e_D)`: one vector
per query, one per document, an ordinary inner product. Keep it so: a non-linearity after the product would end exact
search.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rabtriever.errors import DataError, InputError, MismatchError

__all__ = ["Predictor", "PredictorConfig"]


class PredictorConfig(BaseModel):
    """The shape and the start of a [`Predictor`][rabtriever.predictor.Predictor].

    Raises:
        pydantic.ValidationError: For an unknown key, a value out of range, or `rank` without `multiply`.

    Example:
        >>> PredictorConfig(rank=None).layers  # the paper's
        2
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(default=2, ge=1, description="Linear layers of the MLP; the paper compares 1, 2 and 3.")
    width: int | None = Field(default=None, ge=1, description="Hidden width of the MLP; four times the hidden size.")
    multiply: bool = Field(
        default=True,
        description="Multiply the MLP's output with the document's state; false is the paper's ablation, in which the "
        "score does not depend on the document.",
    )
    rank: int | None = Field(
        default=256,
        ge=1,
        description="Dimensions of the indexed vectors, through a learned map of the document's state; null indexes "
        "the state itself, as in the paper: all students of one teacher then share their documents' vectors.",
    )
    standardize: bool = Field(
        default=True,
        description="Centre and scale the inputs of the MLP and of the document map, dimension by dimension.",
    )
    zero_init: bool = Field(
        default=True,
        description="Start the MLP's last layer at zero: the student starts undecided about every pair, where the "
        "reverse KL has its full gradient, instead of wrongly sure, where it has almost none.",
    )
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Dropout after each of the MLP's hidden layers.")

    @model_validator(mode="before")
    @classmethod
    def _no_rank_without_the_product(cls, values: Any) -> Any:
        off = isinstance(values, dict) and not values.get("multiply", True)
        return {"rank": None} | values if off else values

    @model_validator(mode="after")
    def _rank_needs_the_product(self) -> PredictorConfig:
        if self.rank is not None and not self.multiply:
            raise ValueError("rank maps the document's state, which multiply=false leaves out; set only one of them")
        return self


class _Standardize(nn.Module):
    """Centre and scale each dimension by stored statistics; the identity until they are fitted."""

    mean: Tensor
    std: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(hidden_size))
        self.register_buffer("std", torch.ones(hidden_size))

    def fit(self, x: Tensor) -> None:
        """Take mean and standard deviation over the rows of `x` (n, d)."""
        rows = x.detach().double()
        mean, std = rows.mean(0), rows.std(0, correction=0)
        # What is constant up to rounding carries nothing: dividing by its deviation would only amplify noise.
        std = torch.where(std > 1e-5 * mean.abs() + 1e-8, std, torch.ones_like(std))
        # Over a handful of documents a dimension can stay nearly still by chance and leap on the next one.
        std = torch.maximum(std, 0.01 * std.median())
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() - self.mean) / self.std


class Predictor(nn.Module):
    """Predicts the teacher's hidden state from `e_Q` and `e_D` (Eq. 12), always in float32.

    With `config.rank = k` the document side is a learned map `g` and the output a learned map `U`::

        e_student = std * U(MLP(e_Q) * g((e_D - mean) / std))

    `g` starts as a semi-orthogonal projection (the identity when `k = d`) with a bias of one, `U` as its transpose. So
    every coordinate of `g(e_D)` starts with unit mean and deviation whatever the scale of the hidden dimensions, of
    which a few are a hundred times the others, and each product holds both a term of the query alone (the level of its
    scores) and a term of the pair from the first step on.

    Args:
        hidden_size: `d`, the width of the backbone's hidden states.
        config: The variant.

    Example:
        >>> predictor = Predictor(8, PredictorConfig())
        >>> predictor(torch.randn(3, 8), torch.randn(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(self, hidden_size: int, config: PredictorConfig | None = None) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.config = config or PredictorConfig()
        rank = self.config.rank
        self.query_scale = _Standardize(hidden_size)
        self.mlp = self._build_mlp(rank or hidden_size)
        if rank is not None:
            self.document_scale = _Standardize(hidden_size)
            self.g = nn.Linear(hidden_size, rank)
            self.u = nn.Linear(rank, hidden_size, bias=False)  # a bias would be a score that no index could add
            self._start_low_rank()

    def _build_mlp(self, outputs: int) -> nn.Sequential:
        width = self.config.width or 4 * self.hidden_size
        modules: list[nn.Module] = []
        inputs = self.hidden_size
        for _ in range(self.config.layers - 1):
            modules += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(self.config.dropout)]
            inputs = width
        last = nn.Linear(inputs, outputs)
        if self.config.zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        return nn.Sequential(*modules, last)

    def _start_low_rank(self) -> None:
        if self.g.in_features == self.g.out_features:
            nn.init.eye_(self.g.weight)
        else:
            nn.init.orthogonal_(self.g.weight)
        nn.init.ones_(self.g.bias)
        with torch.no_grad():
            self.u.weight.copy_(self.g.weight.T)

    @property
    def vector_size(self) -> int:
        """`k`, the width of the vectors that `fold` and `document` return."""
        if not self.config.multiply:
            return 1
        return self.config.rank or self.hidden_size

    def fit_standardization(self, e_q: Tensor, e_d: Tensor) -> None:
        """Store the statistics that standardise the inputs; once, before training. Nothing with `standardize=False`.

        Args:
            e_q: (m, d) the training queries' states.
            e_d: (n, d) the documents' states.

        Raises:
            InputError: If there are no rows, or a value is not finite.
        """
        if not self.config.standardize:
            return
        for name, x in (("e_Q", e_q), ("e_D", e_d)):
            if x.shape[0] == 0 or not bool(torch.isfinite(x).all()):
                raise InputError(
                    f"cannot standardise {name}: {'no rows' if x.shape[0] == 0 else 'a value is not finite'}",
                    hint="check the backbone's weights and its dtype; float32 always works",
                )
        self.query_scale.fit(e_q)
        if self.config.rank is not None:
            self.document_scale.fit(e_d)

    def predict(self, e_q: Tensor) -> Tensor:
        """The query side, `p = MLP(e_Q)`: (m, d) -> (m, k), or (m, d) when `multiply` is off."""
        p: Tensor = self.mlp(self.query_scale(e_q))
        return p

    def document(self, e_d: Tensor) -> Tensor:
        """The document side, what an index stores: (n, d) -> (n, vector_size).

        `e_D` itself in the paper's predictor, `g(e_D)` with a rank, a column of ones without multiplication.
        """
        if not self.config.multiply:
            return e_d.new_ones((*e_d.shape[:-1], 1), dtype=torch.float32)
        if self.config.rank is None:
            return e_d.float()
        v: Tensor = self.g(self.document_scale(e_d))
        return v

    def document_state(self) -> dict[str, Tensor]:
        """The tensors that :meth:`document` depends on, by name; none for the paper's predictor."""
        state: dict[str, Tensor] = self.state_dict()
        return {name: x for name, x in state.items() if name.startswith(("document_scale.", "g."))}

    def combine(self, p: Tensor, v: Tensor) -> Tensor:
        """`e_student` (..., d) of `p = predict(e_Q)` and `v = document(e_D)`, whose leading dimensions broadcast.

        Use it to run the MLP once per query rather than once per pair.
        """
        product = p * v
        if self.config.rank is None:
            return product
        e_student: Tensor = self.u(product) * self.document_scale.std
        return e_student

    def forward(self, e_q: Tensor, e_d: Tensor) -> Tensor:
        """Eq. 12 for `b` pairs: `e_q` (b, d) and `e_d` (b, d) -> `e_student` (b, d)."""
        return self.combine(self.predict(e_q), self.document(e_d))

    def fold(self, e_q: Tensor, direction: Tensor) -> Tensor:
        """Query vectors whose inner product with `document(e_d)` is the student's score.

        Args:
            e_q: (m, d) query states.
            direction: (d,) `scale * (w_T - w_F)`, the difference of the head's answer rows.

        Returns:
            (m, vector_size) such that `fold(e_q, direction) @ document(e_d).T` is `direction . forward(e_q, e_d)`
            for every pair, up to float32 rounding.

        Example:
            >>> predictor, direction = Predictor(8), torch.randn(8)
            >>> e_q, e_d = torch.randn(1, 8), torch.randn(1, 8)
            >>> score = predictor.fold(e_q, direction) @ predictor.document(e_d).T
            >>> torch.allclose(score, predictor(e_q, e_d) @ direction)
            True
        """
        return self.fold_predicted(self.predict(e_q), direction)

    def fold_predicted(self, p: Tensor, direction: Tensor) -> Tensor:
        """The same from `p = predict(e_Q)`, where that is at hand."""
        direction = direction.float()
        if not self.config.multiply:
            return (p @ direction)[:, None]
        if self.config.rank is not None:
            direction = (direction * self.document_scale.std) @ self.u.weight  # (d,) -> (k,)
        return p * direction

    def save(self, path: Path) -> None:
        """Write weights and statistics as safetensors, atomically.

        Raises:
            InputError: If the file cannot be written.
        """
        path = Path(path)
        tensors = {name: x.detach().cpu().contiguous() for name, x in self.state_dict().items()}
        try:
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
                temporary = Path(folder) / path.name
                save_file(tensors, temporary)
                temporary.replace(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot write {path}: {error}", hint="check the folder and the free space") from error

    @classmethod
    def load(cls, path: Path, hidden_size: int, config: PredictorConfig | None = None) -> Predictor:
        """Read what `save` wrote, in evaluation mode.

        Raises:
            DataError: If the file is missing, is no safetensors file or holds a value that is not finite.
            MismatchError: If its tensors are not those of `config` and `hidden_size`.
        """
        predictor = cls(hidden_size, config)
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise DataError(f"cannot read predictor {path}: {error}", hint="train or copy the model again") from error
        wanted = {name: tuple(x.shape) for name, x in predictor.state_dict().items()}
        found = {name: tuple(x.shape) for name, x in tensors.items()}
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise MismatchError(
                    f"{path}: tensor {name!r} is {found.get(name, 'missing')}, "
                    f"the configuration wants {wanted.get(name, 'no such tensor')}",
                    hint="use the config.json that was saved with the predictor",
                )
            if not bool(torch.isfinite(tensors[name]).all()):
                raise DataError(f"{path}: tensor {name!r} holds values that are not finite", hint="train it again")
        predictor.load_state_dict(tensors)
        return predictor.eval()
