"""Where stage III begins: the score is a line through the states' inner product, in every shape of a predictor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rabtriever import Reranker, distill
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.training.config import DistillConfig
from rabtriever.training.start import POWERS, fit_logistic, start_from_states
from toy_data import SHORT, StopAt, toy_dataset

D = 12
SHAPES = {
    "all directions": PredictorConfig(rank=D + 1, dropout=0.5),
    "wide": PredictorConfig(rank=20),
    "one layer": PredictorConfig(rank=D + 1, layers=1),
    "three layers": PredictorConfig(rank=D + 1, layers=3),
    "raw": PredictorConfig(rank=D + 1, standardize=False),
}


def states(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, D, generator=generator) * torch.linspace(0.5, 3, D) + torch.linspace(-3, 3, D)


def near(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Documents, and a query near each."""
    e_d = states(40, seed)
    return e_d + 0.5 * states(40, seed + 1), e_d


def everything(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(rows).repeat_interleave(rows), torch.arange(rows).repeat(rows)


@torch.no_grad()
def scored(predictor: Predictor) -> torch.Tensor:
    e_q, e_d = near()
    return predictor.fold(e_q, states(1, 5)[0]) @ predictor.document(e_d).T


def started(
    config: PredictorConfig, log_odds: torch.Tensor | None = None, power: float = 0.5
) -> tuple[Predictor, bool]:
    torch.manual_seed(0)
    predictor = Predictor(D, config).eval()
    e_q, e_d = near()
    predictor.fit_standardization(e_q, e_d)
    rows, columns = everything(40)
    taught = 6.0 * (rows == columns) - 3.0 if log_odds is None else log_odds
    return predictor, start_from_states(predictor, states(1, 5)[0], e_q, e_d, (rows, columns), taught, power)


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_the_score_is_a_line_through_the_inner_product(config: PredictorConfig, power: float) -> None:
    predictor, done = started(config, power=power)
    assert done
    e_q, e_d = near()
    scores = scored(predictor)
    products = (e_q / e_q.std(0, correction=0) ** (1 - power)) @ (e_d / e_d.std(0, correction=0) ** (1 - power)).T
    together = torch.corrcoef(torch.stack([scores.flatten(), products.flatten()]))[0, 1]
    assert float(together) == pytest.approx(1.0, abs=1e-4)
    assert scores.diagonal().mean() > scores.mean()


def test_the_probabilities_are_the_teachers_on_average() -> None:
    predictor, _ = started(SHAPES["all directions"])
    scores = scored(predictor)
    taught = torch.eye(40) * 6.0 - 3.0
    assert float(scores.sigmoid().mean()) == pytest.approx(float(taught.sigmoid().mean()), abs=0.005)


def test_a_lower_rank_keeps_the_directions_that_vary_most() -> None:
    firsts = []
    for rank in (3, 6, D + 1):
        predictor, done = started(PredictorConfig(rank=rank))
        assert done and predictor.vector_size == rank
        scores = scored(predictor)
        firsts.append(int((scores.argmax(1) == torch.arange(40)).sum()))
    assert firsts[0] < firsts[-1] and firsts == sorted(firsts)


def test_few_hidden_units_carry_fewer_directions() -> None:
    predictor, done = started(PredictorConfig(rank=D + 1, width=7))
    assert done
    assert int((predictor.g.weight[:3].norm(dim=1) > 0).sum()) == 3  # seven units hold three directions in two halves


def test_states_that_say_the_opposite_are_no_start() -> None:
    rows, columns = everything(40)
    torch.manual_seed(0)
    untouched = Predictor(D, PredictorConfig(rank=6))
    predictor, done = started(PredictorConfig(rank=6), 3.0 - 6.0 * (rows == columns))
    assert not done
    for name, weight in untouched.named_parameters():
        assert torch.equal(weight, predictor.get_parameter(name))


def test_a_rank_of_one_has_no_room() -> None:
    assert not started(PredictorConfig(rank=1))[1]


@pytest.mark.parametrize("level", [-8.0, 0.0, 2.0])
def test_the_line_is_found_again(level: float) -> None:
    x = 30 * torch.randn(500, generator=torch.Generator().manual_seed(1))
    slope, found = fit_logistic(x, 0.2 * x + level)
    assert slope == pytest.approx(0.2, rel=1e-3) and found == pytest.approx(level, abs=0.01)


def test_what_is_separable_has_a_finite_slope() -> None:
    slope, level = fit_logistic(torch.tensor([-1.0, 1.0]), torch.tensor([-1e4, 1e4]))
    assert 1 < slope < 1e3 and abs(level) < 1e-6


def test_constant_products_say_nothing() -> None:
    assert fit_logistic(torch.zeros(4), torch.tensor([1.0, 2.0, -1.0, 3.0]))[0] == 0.0


# --- in a training

DATA = toy_dataset()
STATES = DistillConfig(candidates="random:3", epochs=5, batch_queries=8, start="states")


@pytest.fixture(scope="module")
def agreeing(tiny_folder: Callable[..., Path]) -> Reranker:
    """The same random teacher with its answers exchanged: it says yes to what is near, as a trained one does."""
    exchanged = SHORT.model_copy(update={"true": SHORT.false, "false": SHORT.true})
    return Reranker.from_pretrained(tiny_folder("llama"), prompt=exchanged, dtype="float32")


def distilled(teacher: Reranker, store: Path, output: Path | None = None, **change: Any) -> dict[str, Any]:
    student = distill(teacher, DATA, STATES.model_copy(update=change), output, store=store)
    return {"fingerprint": student.fingerprint, **student.training["distill"]}


def test_the_start_is_kept_where_no_epoch_is_better(agreeing: Reranker, store: Path) -> None:
    made = distilled(agreeing, store, learning_rate=1e-12)
    assert [entry["dev_mrr"] for entry in made["history"]] == [made["start"]["dev_mrr"]] * 5
    assert made["best_epoch"] == 0 and made["dev_mrr"] == made["start"]["dev_mrr"]


def test_the_best_weighing_on_dev_is_taken(agreeing: Reranker, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = []
    for power in POWERS:
        monkeypatch.setattr("rabtriever.training.predictor_loop.POWERS", (power,))
        alone.append(distilled(agreeing, store, epochs=1)["start"])
    monkeypatch.setattr("rabtriever.training.predictor_loop.POWERS", POWERS)
    assert distilled(agreeing, store, epochs=1)["start"] == max(alone, key=lambda start: start["dev_mrr"])


def test_steps_from_a_start_are_small(agreeing: Reranker, store: Path) -> None:
    assert distilled(agreeing, store)["fingerprint"] == distilled(agreeing, store, learning_rate=1e-4)["fingerprint"]


def test_a_teacher_that_says_no_to_what_is_near_gives_no_start(teacher: Reranker, store: Path) -> None:
    left = distilled(teacher, store, epochs=1)
    assert left["start"] is None
    assert left["fingerprint"] == distilled(teacher, store, epochs=1, start="zero")["fingerprint"]


@pytest.mark.parametrize(
    ("apart", "change", "started"),
    [
        (1.0, {}, True),
        (0.0, {}, False),
        (1.0, {"start": "zero"}, False),
        (0.0, {"start": "states"}, True),
        (1.0, {"predictor": PredictorConfig(rank=None)}, False),
    ],
    ids=str,
)
def test_a_teacher_that_has_learnt_to_read_apart_is_where_it_starts(
    apart: float,
    change: dict[str, Any],
    started: bool,
    agreeing: Reranker,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(agreeing.training, "teacher", {"config": {"apart_weight": apart}})
    made = distilled(agreeing, store, **{"epochs": 1, "start": "auto", **change})
    assert (made["start"] is not None) == started


def test_a_stop_changes_no_bit(agreeing: Reranker, store: Path, tmp_path: Path) -> None:
    whole = distilled(agreeing, store, learning_rate=1e-3)
    for stop in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            distill(
                agreeing,
                DATA,
                STATES.model_copy(update={"learning_rate": 1e-3}),
                tmp_path,
                store=store,
                progress=StopAt("student", stop),
            )
    resumed = distilled(agreeing, store, tmp_path, learning_rate=1e-3)
    timed = ("seconds", "teacher_pairs_computed")
    assert {k: v for k, v in resumed.items() if k not in timed} == {k: v for k, v in whole.items() if k not in timed}
