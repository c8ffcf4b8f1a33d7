"""What happens between the steps of stage I: progress, checkpoints by the clock, an early end, Ctrl-C."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from rabtriever.errors import InputError

if TYPE_CHECKING:
    from rabtriever.progress import Task

__all__ = ["Report", "patience_is_out", "recent_loss"]

_SAVE_SECONDS = 300.0
"""A crash or a power cut costs at most so much work."""


class Report(TrainerCallback):
    """Shows progress, ends a training that gets no better, and turns the first Ctrl-C into a checkpoint.

    Args:
        task: Where steps are counted.
        patience: How many evaluations without a better state it takes to end.

    Attributes:
        interrupted: Whether Ctrl-C was pressed.
        save_now: Whether the step under way is to be stored.
    """

    def __init__(self, task: Task, patience: int) -> None:
        self.task, self.patience = task, patience
        self.interrupted = False
        self.saved = time.monotonic()
        self.save_now = False

    @property
    def is_save_due(self) -> bool:
        """Whether the last checkpoint is too long ago."""
        return time.monotonic() - self.saved > _SAVE_SECONDS

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step, and store it if that is due."""
        self.task.advance(1)
        if self.save_now:
            control.should_save = True
        if self.interrupted:
            control.should_save = True  # an evaluation that is due takes place: a resume goes on with the next step
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Show the loss; refuse one that is not finite."""
        if logs and "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise InputError(
                    f"the teacher's loss became {logs['loss']} at step {state.global_step}",
                    hint="lower teacher.learning_rate, or train in float32 with dtype=float32",
                )
            self.task.note(f"loss {recent_loss(state.log_history):.3f}")
        elif logs and "eval_mrr" in logs:
            self.task.note(f"dev MRR {logs['eval_mrr']:.3f}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note when it was."""
        self.saved = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End what gets no better."""
        if patience_is_out(state.log_history, self.patience):
            control.should_training_stop = True

    def on_interrupt(self, *_: object) -> None:
        """The signal handler: stop after this step; a second signal stops at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


# Both are read off the log, which is stored with every checkpoint: so they are the same after a resume.


def recent_loss(log: Sequence[Mapping[str, float]]) -> float:
    """The mean of the last twenty steps' losses.

    Example:
        >>> recent_loss([{"loss": 1.0}, {"eval_mrr": 0.5}, {"loss": 3.0}])
        2.0
    """
    losses = [entry["loss"] for entry in log if "loss" in entry][-20:]
    return sum(losses) / max(1, len(losses))


def patience_is_out(log: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether so many evaluations have come after the best one.

    Example:
        >>> patience_is_out([{"eval_mrr": 0.5}, {"eval_mrr": 0.4}], 2)
        False
    """
    mrrs = [entry["eval_mrr"] for entry in log if "eval_mrr" in entry]
    return bool(mrrs) and len(mrrs) - 1 - mrrs.index(max(mrrs)) >= patience
