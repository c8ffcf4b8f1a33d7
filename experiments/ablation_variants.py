"""What ``ablations.py`` changes, group by group: settings of stage III, laid over an experiment's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["GROUPS", "Group"]

Settings = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Variants of one reference.

    Attributes:
        about: What the reference is, for people.
        reference: What it changes of the experiment's own settings.
        variants: What each variant changes of the reference.
    """

    about: str
    reference: Settings = field(default_factory=dict)
    variants: dict[str, Settings] = field(default_factory=dict)


_PAPER_PREDICTOR = {"rank": None, "dropout": 0.0}
_PAPER_LOSS = {"ranking_weight": 0.0, "label_weight": 0.0, "predictor": _PAPER_PREDICTOR}
_NO_PRODUCT = {"multiply": False, "rank": None}
_LABELS_ALONE = {"mse_weight": 0.0, "kl_weight": 0.0, "ranking_weight": 0.0}

GROUPS: dict[str, Group] = {
    "default": Group(
        "the experiment's settings: MSE, KL, ranking and labels",
        {},
        {
            "no multiplication": {"predictor": _NO_PRODUCT},
            "no MSE": {"mse_weight": 0.0},
            "no KL": {"kl_weight": 0.0},
            "forward divergences": {"kl": "forward"},
            "no ranking": {"ranking_weight": 0.0},
            "no labels": {"label_weight": 0.0},
            "labels alone": _LABELS_ALONE,
            "3 times the labels": {"label_weight": 3.0},
            "KL 0.1": {"kl_weight": 0.1},
            "KL 10": {"kl_weight": 10.0},
            "KL 100": {"kl_weight": 100.0},
            "MSE not normalised": {"normalize_target": False},
            "one layer": {"predictor": {"layers": 1}},
            "three layers": {"predictor": {"layers": 3}},
            "plain start": {"predictor": {"zero_init": False}},
            "inputs not standardised": {"predictor": {"standardize": False}},
            "paper's predictor": {"predictor": _PAPER_PREDICTOR},
            "rank 64": {"predictor": {"rank": 64}},
            "rank 256": {"predictor": {"rank": 256}},
            "rank 256, dropout 0.3": {"predictor": {"rank": 256, "dropout": 0.3}},
            "dropout 0.3": {"predictor": {"dropout": 0.3}},
            "64 queries a step": {"batch_queries": 64},
        },
    ),
    "paper": Group(
        "the paper's loss, pair by pair (normalised MSE and KL alone), and its predictor",
        _PAPER_LOSS,
        {
            "no multiplication": {"predictor": _NO_PRODUCT},
            "no MSE": {"mse_weight": 0.0},
            "no KL": {"kl_weight": 0.0},
            "forward KL": {"kl": "forward"},
            "one layer": {"predictor": {"layers": 1}},
            "three layers": {"predictor": {"layers": 3}},
            "KL 0.1": {"kl_weight": 0.1},
            "KL 10": {"kl_weight": 10.0},
            "KL 100": {"kl_weight": 100.0},
            "MSE not normalised": {"normalize_target": False},
            "MSE not normalised, KL 0.25": {"normalize_target": False, "kl_weight": 0.25},
        },
    ),
    "positions": Group(
        "the paper's loss and predictor on the pairs of 300 queries, the embedding error at the answer's position",
        {**_PAPER_LOSS, "max_queries": 300},
        {
            "at every position": {"mse_positions": "all"},
            "at every position, not normalised": {"mse_positions": "all", "normalize_target": False},
            "not normalised": {"normalize_target": False},
        },
    ),
    "candidates": Group(
        "every query with 16 wrong documents, drawn once",
        {"candidates": "random:16"},
        {
            "all 74, for 71 of the queries": {"candidates": "all", "max_queries": 71},
            "all 74, for 71 of the queries, the others' labels": {
                "candidates": "all",
                "max_queries": 71,
                "labelled_queries": 243,
            },
            "8, then its own best 8, twice": {"candidates": "on-policy:8"},
            "8": {"candidates": "random:8"},
        },
    ),
}
"""The last group is made for SayCan's 314 queries and 75 skills: about 5,350 teacher passes each, but for its last."""
