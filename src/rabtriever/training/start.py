"""Where stage III begins: the inner product of the teacher's own states, scaled to the teacher's log-odds.

A teacher that has learnt to read apart as well (`teacher.apart_weight`) places queries near their documents already.
A predictor that starts from nothing has to find that again in its training queries, and finds what is true of these
alone; one that starts there has less to learn, and keeps more of what is true of other collections too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rabtriever.predictor import Predictor

__all__ = ["POWERS", "fit_logistic", "start_from_states"]

POWERS = (0.5, 0.0, 1.0)
"""What dimensions may weigh, the first where there is no dev: ALFRED's teacher is best by its own (1), facts of other
collections are found best by dimensions that weigh the same (0)."""


@torch.no_grad()
def start_from_states(
    predictor: Predictor,
    direction: Tensor,
    e_q: Tensor,
    e_d: Tensor,
    pairs: tuple[Tensor, Tensor],
    log_odds: Tensor,
    power: float = POWERS[0],
) -> bool:
    """Let a predictor's score be ``slope * <x, y> + level`` of the states ``x`` and ``y`` of query and document.

    Each dimension is divided by its deviation and weighed by that deviation's power. The inner product is that of the
    principal directions, as many as the rank allows but for one, which holds the level; slope and level are those whose
    probabilities are nearest to the teacher's. All weights stay trainable, and hidden units that the start does not
    need stay as they were drawn.

    Args:
        predictor: With a rank, its statistics fitted; changed in place.
        direction: ``(d,)`` the difference of the head's answer rows.
        e_q: ``(m, d)`` states of queries.
        e_d: ``(n, d)`` states of documents.
        pairs: For each pair that the teacher has judged its query's and its document's row, ``(p,)`` each.
        log_odds: What the teacher said of them, ``(p,)``.
        power: 0 lets all dimensions weigh the same, 1 is the inner product of the states as they are.

    Returns:
        Whether it starts there: not if pairs that the teacher calls right are no nearer than others, where the
        predictor stays as it was.

    Example:
        >>> start_from_states(predictor, direction, e_q, e_d, (rows, columns), log_odds)  # doctest: +SKIP
        True
    """
    e_q, e_d = e_q.float(), e_d.float()
    weights = [_weights(e, power) for e in (e_q, e_d)]
    basis = _principal(e_q * weights[0], e_d * weights[1], _room(predictor))
    query_map, document_map = (basis * weight for weight in weights)
    rows, columns = pairs
    slope, level = fit_logistic(((e_q @ query_map.T)[rows] * (e_d @ document_map.T)[columns]).sum(1), log_odds)
    if slope <= 0:
        return False
    count = len(basis)
    _write_query_side(predictor, *_of_standardized(query_map, predictor.query_scale.mean, predictor.query_scale.std))
    scale = predictor.document_scale
    predictor.g.weight[:count], predictor.g.bias[:count] = _of_standardized(document_map, scale.mean, scale.std)
    predictor.g.weight[-1], predictor.g.bias[-1] = 0.0, 1.0
    _write_output(predictor, direction.float(), torch.tensor([slope] * count + [level]))
    return True


def fit_logistic(x: Tensor, log_odds: Tensor) -> tuple[float, float]:
    """Slope and level whose ``sigmoid(slope * x + level)`` is nearest to the given probabilities (cross-entropy).

    Args:
        x: ``(n,)``.
        log_odds: Of the probabilities, ``(n,)``.

    Example:
        >>> x = torch.linspace(-3, 3, 50)
        >>> slope, level = fit_logistic(x, 2 * x - 1)
        >>> round(slope, 3), round(level, 3)
        (2.0, -1.0)
    """
    scale = float(x.std(correction=0).clamp_min(1e-12))
    design = torch.stack([x.double() / scale, torch.ones(len(x), dtype=torch.double)], 1)
    wanted = log_odds.double().sigmoid()
    found = torch.zeros(2, dtype=torch.double)
    ridge = 1e-8 * torch.eye(2, dtype=torch.double)  # separable pairs would have no finite slope
    for _ in range(50):
        given = (design @ found).sigmoid()
        gradient = design.T @ (given - wanted) / len(x) + ridge @ found
        curvature = design.T @ (design * (given * (1 - given))[:, None]) / len(x) + ridge
        step = torch.linalg.solve(curvature, gradient)
        found -= step * min(1.0, 2.0 / float(step.norm().clamp_min(1e-12)))
        if float(step.norm()) < 1e-10:
            break
    return float(found[0]) / scale, float(found[1])


def _room(predictor: Predictor) -> int:
    """How many directions fit: one of the rank's coordinates is the level's, and each takes two hidden units."""
    assert predictor.config.rank is not None
    hidden = [module.out_features // 2 for module in _linear(predictor)[:-1]]
    return min(predictor.config.rank - 1, predictor.hidden_size, *hidden)


def _linear(predictor: Predictor) -> list[nn.Linear]:
    return [module for module in predictor.mlp if isinstance(module, nn.Linear)]


def _weights(e: Tensor, power: float) -> Tensor:
    """What each dimension of these states is multiplied by, ``(d,)``, so that their mean square is 1."""
    std = e.std(0, correction=0)
    weights = torch.maximum(std, 0.01 * std.median()).clamp_min(1e-8) ** (power - 1.0)
    weighed: Tensor = weights / (e * weights).square().mean().sqrt().clamp_min(1e-12)
    return weighed


def _of_standardized(weight: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias by which ``(e - mean) / std`` is mapped as this weight maps ``e``."""
    return weight * std, weight @ mean


def _principal(x: Tensor, y: Tensor, count: int) -> Tensor:
    """The directions in which both sides are largest, ``(count, d)``; all of the space where it has no more."""
    if count >= x.shape[1]:
        return torch.eye(x.shape[1])
    moments = x.T.double() @ x.double() / len(x) + y.T.double() @ y.double() / len(y)
    principal: Tensor = torch.linalg.eigh(moments).eigenvectors.flip(1)[:, :count].T.float().contiguous()
    return principal


def _write_query_side(predictor: Predictor, weight: Tensor, bias: Tensor) -> None:
    """Let the MLP's first outputs be this map of its input, its last one 1, and all others 0.

    Through a ReLU what is linear passes in two halves, ``x = relu(x) - relu(-x)``.
    """
    count = len(weight)
    *hidden, last = _linear(predictor)
    if hidden:
        weight, bias = torch.cat([weight, -weight]), torch.cat([bias, -bias])
    for module in hidden:
        module.weight[: 2 * count] = 0.0
        module.weight[: 2 * count, : weight.shape[1]] = weight
        module.bias[: 2 * count] = bias
        weight, bias = torch.eye(2 * count), torch.zeros(2 * count)
    last.weight.zero_()
    last.bias.zero_()
    if hidden:
        weight, bias = torch.cat([torch.eye(count), -torch.eye(count)], 1), torch.zeros(count)
    last.weight[:count, : weight.shape[1]], last.bias[:count] = weight, bias
    last.bias[-1] = 1.0


def _write_output(predictor: Predictor, direction: Tensor, coefficients: Tensor) -> None:
    """Let the answer's direction see the first coordinates and the last with these coefficients.

    Nothing is said of the other directions of the teacher's state: what they are is for training to find.
    """
    scaled = direction * predictor.document_scale.std
    seen = scaled @ predictor.u.weight
    seen[: len(coefficients) - 1], seen[-1] = coefficients[:-1], coefficients[-1]
    predictor.u.weight.copy_(torch.outer(scaled, seen) / (scaled @ scaled))
