"""Eq. 12: the fold is exact in every variant, each side depends on its own input, files survive a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from rabtriever.errors import DataError, InputError, MismatchError
from rabtriever.predictor import Predictor, PredictorConfig

D = 12
VARIANTS = {
    "paper": PredictorConfig(zero_init=False, rank=None),
    "raw": PredictorConfig(zero_init=False, rank=None, standardize=False),
    "one-layer": PredictorConfig(zero_init=False, rank=None, layers=1),
    "three-layers": PredictorConfig(zero_init=False, rank=None, layers=3, width=5),
    "no-product": PredictorConfig(zero_init=False, multiply=False),
    "rank-3": PredictorConfig(zero_init=False, rank=3),
    "rank-d": PredictorConfig(zero_init=False, rank=D, standardize=False),
    "rank-20": PredictorConfig(zero_init=False, rank=20),
}


def states(rows: int, seed: int = 0, hidden_size: int = D) -> torch.Tensor:
    """States like a language model's: shifted, with one dimension a hundred times the others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, hidden_size, generator=generator) + torch.linspace(-3, 3, hidden_size)
    x[:, 1] *= 100
    return x


def fitted(config: PredictorConfig, seed: int = 0) -> Predictor:
    torch.manual_seed(seed)
    predictor = Predictor(D, config).eval()
    predictor.fit_standardization(states(50, 1), states(40, 2))
    return predictor


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def predictor(request: pytest.FixtureRequest) -> Predictor:
    return fitted(request.param)


def test_the_fold_is_the_score(predictor: Predictor) -> None:
    e_q, e_d, direction = states(5, 3), states(7, 4), states(1, 5)[0]
    queries, documents = predictor.fold(e_q, direction).double(), predictor.document(e_d).double()
    folded = queries @ documents.T
    pairs = predictor(e_q.repeat_interleave(7, 0), e_d.repeat(5, 1))
    expected = (pairs.double() @ direction.double()).view(5, 7)
    size = queries.abs() @ documents.abs().T  # what rounding is relative to
    assert ((folded - expected).abs() <= 1e-6 * size).all()
    assert predictor.fold(e_q, direction).shape == (5, predictor.vector_size)
    assert predictor.document(e_d).shape == (7, predictor.vector_size)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(VARIANTS)), st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_the_fold_is_linear_in_the_direction(name: str, seed: int, scale: float) -> None:
    predictor, e_q = fitted(VARIANTS[name], seed), states(3, seed)
    a, b = states(2, seed + 1)
    predictor.requires_grad_(False)
    together = predictor.fold(e_q, scale * a + b)
    apart = scale * predictor.fold(e_q, a) + predictor.fold(e_q, b)
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-4 * float(apart.abs().max()) + 1e-6)


def test_each_side_depends_on_its_own_input_alone(predictor: Predictor) -> None:
    e_q, e_d = states(4, 6).requires_grad_(), states(4, 7).requires_grad_()
    (to_query,) = torch.autograd.grad(predictor.fold(e_q, torch.ones(D)).sum(), e_q)
    assert to_query.abs().sum() > 0
    document = predictor.document(e_d)
    assert document.requires_grad or not predictor.config.multiply
    # A row is encoded alone or in a batch, beside whatever else.
    torch.testing.assert_close(predictor.document(e_d[2:3]), document[2:3])
    torch.testing.assert_close(predictor.predict(e_q[2:3]), predictor.predict(e_q)[2:3])


def test_nothing_after_the_product_is_non_linear(predictor: Predictor) -> None:
    p, v = predictor.predict(states(4, 8)), predictor.document(states(4, 9))
    other = torch.randn(p.shape)
    combined = predictor.combine(2 * p - 3 * other, v)
    torch.testing.assert_close(
        combined, 2 * predictor.combine(p, v) - 3 * predictor.combine(other, v), rtol=1e-4, atol=1e-2
    )
    assert not predictor.combine(torch.zeros_like(p), v).any()


def test_combine_serves_one_query_and_many_documents(predictor: Predictor) -> None:
    e_q, e_d = states(2, 10), states(6, 11).view(2, 3, D)
    once = predictor.combine(predictor.predict(e_q)[:, None], predictor.document(e_d)).expand(2, 3, D)
    pairs = predictor(e_q.repeat_interleave(3, 0), e_d.reshape(6, D)).view(2, 3, D)
    torch.testing.assert_close(once, pairs)


def test_without_the_product_the_document_does_not_matter() -> None:
    predictor = fitted(VARIANTS["no-product"])
    assert torch.equal(predictor(states(4, 1), states(4, 2)), predictor(states(4, 1), states(4, 3)))


def test_the_default_indexes_a_map_of_the_documents_state() -> None:
    assert Predictor(D).document(states(3)).shape == (3, 256)
    assert PredictorConfig(multiply=False).rank is None
    stored = PredictorConfig(rank=None).model_dump()
    assert PredictorConfig.model_validate(stored) == PredictorConfig(rank=None)  # as older models have it written down


def test_the_zero_start_is_undecided_and_trains() -> None:
    for rank in (None, 4):
        torch.manual_seed(0)
        predictor = Predictor(D, PredictorConfig(rank=rank))
        predictor.fit_standardization(states(50, 1), states(40, 2))
        e_q, e_d, direction = states(64, 3), states(64, 4), torch.randn(D)
        assert not predictor(e_q, e_d).any()
        target = torch.sign(e_q[:, 0] * (e_d[:, 3] - e_d[:, 3].mean()))
        optimizer = torch.optim.Adam(predictor.parameters(), lr=3e-3)
        for _ in range(120):
            loss = torch.nn.functional.softplus(-target * (predictor(e_q, e_d) @ direction)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.3, rank


def test_at_full_rank_and_all_ones_the_start_is_the_shifted_document() -> None:
    predictor = fitted(PredictorConfig(rank=D))
    e_d = states(5, 1)
    scale = predictor.document_scale
    torch.testing.assert_close(
        predictor.combine(torch.ones(5, D), predictor.document(e_d)), e_d - scale.mean + scale.std, rtol=1e-4, atol=1e-3
    )


def test_standardisation() -> None:
    predictor = fitted(PredictorConfig(rank=3))
    x = states(50, 1)
    x[:, 0] = 7.0  # constant
    predictor.fit_standardization(x, states(1, 2))  # a single document
    out = predictor.query_scale(x)
    assert not out[:, 0].any()
    torch.testing.assert_close(out[:, 1:].std(0, correction=0), torch.ones(D - 1))
    torch.testing.assert_close(out.mean(0), torch.zeros(D), atol=1e-5, rtol=0)
    assert torch.isfinite(predictor(x, states(50, 3))).all()

    raw = Predictor(D, PredictorConfig(standardize=False))
    raw.fit_standardization(x, x)
    assert torch.equal(raw.query_scale(x), x)


@pytest.mark.parametrize("bad", [torch.empty(0, D), torch.full((2, D), torch.nan)])
def test_standardisation_refuses_what_it_cannot_use(bad: torch.Tensor) -> None:
    with pytest.raises(InputError, match="cannot standardise e_D"):
        Predictor(D).fit_standardization(states(3), bad)


def test_half_precision_states_are_computed_in_float32() -> None:
    predictor = fitted(VARIANTS["rank-3"])
    e_q, e_d = states(3, 1).bfloat16(), states(3, 2).bfloat16()
    assert predictor.fold(e_q, torch.ones(D).bfloat16()).dtype == torch.float32
    assert torch.equal(predictor(e_q, e_d), predictor(e_q.float(), e_d.float()))


def test_saved_is_loaded_bit_for_bit(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "predictor.safetensors"
    predictor.save(path)
    loaded = Predictor.load(path, D, predictor.config)
    e_q, e_d, direction = states(4, 1), states(4, 2), states(1, 3)[0]
    assert torch.equal(loaded(e_q, e_d), predictor(e_q, e_d))
    assert torch.equal(loaded.fold(e_q, direction), predictor.fold(e_q, direction))
    assert not loaded.training
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_wrong_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictor.safetensors"
    with pytest.raises(DataError, match="cannot read"):
        Predictor.load(path, D)
    path.write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="cannot read"):
        Predictor.load(path, D)
    paper = PredictorConfig(rank=None)
    Predictor(D, paper).save(path)
    with pytest.raises(MismatchError, match=r"mlp\.0\.bias"):
        Predictor.load(path, D + 1, paper)
    with pytest.raises(MismatchError, match="missing"):
        Predictor.load(path, D, PredictorConfig(rank=2))
    tensors = load_file(path)
    tensors["mlp.0.weight"][0, 0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(DataError, match="not finite"):
        Predictor.load(path, D, paper)
    with pytest.raises(InputError, match="cannot write"):
        Predictor(D).save(tmp_path / "nowhere" / "predictor.safetensors")


@pytest.mark.parametrize(
    "bad", [{"layers": 0}, {"rank": 0}, {"rank": 4, "multiply": False}, {"dropout": 1}, {"lares": 2}]
)
def test_a_wrong_configuration_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PredictorConfig.model_validate(bad)


def test_dropout_acts_in_training_only() -> None:
    predictor = fitted(PredictorConfig(zero_init=False, dropout=0.5))
    e_q = states(4, 1)
    assert torch.equal(predictor.predict(e_q), predictor.predict(e_q))
    predictor.train()
    assert not torch.equal(predictor.predict(e_q), predictor.predict(e_q))
