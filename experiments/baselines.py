"""What the trained baselines have in common: the base model as plain text, and how the Trainer is run."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rabtriever.base_models import resolve_base
from rabtriever.evaluation import Report, join_reports, load_report

__all__ = ["given", "plain_base", "save_report", "trainer_settings"]


@contextmanager
def plain_base(base: str, *, headless: bool = False) -> Iterator[Path]:
    """A copy of a base model without its chat template: else every text becomes a chat message.

    Args:
        base: As :func:`rabtriever.base_models.resolve_base` takes it.
        headless: Leave out that it is a causal language model too, so that it can be given another head.
    """
    with TemporaryDirectory() as folder:
        plain = Path(shutil.copytree(resolve_base(base), f"{folder}/base", ignore=shutil.ignore_patterns("chat_*")))
        _without(plain / "tokenizer_config.json", "chat_template")
        if headless:
            _without(plain / "config.json", "architectures")
        yield plain


def _without(file: Path, key: str) -> None:
    settings = json.loads(file.read_text())
    settings.pop(key, None)
    file.write_text(json.dumps(settings))


def trainer_settings(options: argparse.Namespace, steps: int, best: str) -> dict[str, Any]:
    """So many steps with a warm-up and a cosine, evaluated now and then; the best state by one measure is kept."""
    every = max(1, steps // options.evaluations)
    return {
        "max_steps": steps,
        "per_device_train_batch_size": options.batch,
        "learning_rate": options.learning_rate,
        "warmup_steps": steps // 10,
        "lr_scheduler_type": "cosine",
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 1,
        "save_only_model": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": best,
        "greater_is_better": True,
        "logging_steps": max(1, every // 4),
        "report_to": [],
        "seed": options.seed,
        "disable_tqdm": True,
    }


def given(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, but for where it lies: that says nothing about the result."""
    return {key: value for key, value in vars(options).items() if not isinstance(value, Path)}


def save_report(report: Report, path: Path, earlier: Path | None) -> None:
    """Save a report, behind the systems of an earlier one if there is one, and print its figures."""
    for name, figures in report.to_dict()["systems"].items():
        print(name, {key: round(value, 4) for key, value in figures.items() if "@" in key})
    if earlier is not None:
        report = join_reports(load_report(earlier), report)
    report.save(path)
