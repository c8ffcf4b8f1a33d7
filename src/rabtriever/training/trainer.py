"""transformers' Trainer, told what a step of stage I is and how a checkpoint is stored without pickle."""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from rabtriever.backbone import Backbone
from rabtriever.errors import InputError
from rabtriever.training.checkpoint import load_state, load_weights, save_state
from rabtriever.training.step import answer_losses

if TYPE_CHECKING:
    from rabtriever.progress import Task
    from rabtriever.reranker import Reranker
    from rabtriever.training.config import TeacherConfig
    from rabtriever.training.plan import Plan

__all__ = ["TeacherTrainer", "last_checkpoint", "training_arguments"]

_STATE = "state.safetensors"


def training_arguments(
    config: TeacherConfig, steps: int, folder: Path, seed: int, *, evaluated: bool
) -> TrainingArguments:
    """The Trainer's arguments for so many steps; ``evaluated`` if a dev split chooses the best state."""
    every = max(1, math.ceil(steps / max(1, config.evaluations)))
    best: dict[str, Any] = {}
    if evaluated:
        best = {
            "eval_strategy": "steps",
            "eval_steps": every,
            "load_best_model_at_end": True,
            "metric_for_best_model": "mrr",
            "greater_is_better": True,
        }
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(config.warmup * steps)),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_steps=1,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        **best,
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; the Trainer writes its own state file last."""
    whole = [p.parent for p in folder.glob("checkpoint-*/trainer_state.json") if (p.parent / _STATE).exists()]
    return max(whole, key=lambda p: int(p.name.split("-")[1]), default=None)


class _StepNumbers(TorchDataset[dict[str, int]]):
    """The Trainer walks over step numbers; the plan knows their pairs."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, int]:
        return {"step": step}


class _Report(TrainerCallback):
    """Shows progress, keeps the losses, and turns the first Ctrl-C into a checkpoint."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.interrupted = False
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.task.advance(1)
        if self.interrupted:
            control.should_save = True
            control.should_evaluate = False
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            if not math.isfinite(logs["loss"]):
                raise InputError(
                    f"the teacher's loss became {logs['loss']} at step {state.global_step}",
                    hint="lower teacher.learning_rate, or train in float32 with dtype=float32",
                )
            self.losses.append(logs["loss"])
            self.task.note(f"loss {sum(self.losses[-20:]) / len(self.losses[-20:]):.3f}")
        elif logs and "eval_mrr" in logs:
            self.task.note(f"dev MRR {logs['eval_mrr']:.3f}")

    def on_interrupt(self, *_: object) -> None:
        """The signal handler: stop after this step; a second signal stops at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True


class TeacherTrainer(Trainer):
    """Trains what :class:`rabtriever.training.teacher._Trained` made trainable."""

    def __init__(
        self,
        trained: Any,
        plan: Plan,
        teacher: Reranker,
        config: TeacherConfig,
        arguments: TrainingArguments,
        *,
        mrr: Callable[[], float],
        task: Task,
    ) -> None:
        self.report = _Report(task)
        callbacks: list[TrainerCallback] = [self.report]
        if arguments.load_best_model_at_end:
            callbacks.append(EarlyStoppingCallback(config.patience))
        super().__init__(
            model=trained.backbone.model,
            args=arguments,
            train_dataset=_StepNumbers(arguments.max_steps),
            eval_dataset=_StepNumbers(1),
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.trained, self.plan, self.teacher, self.config, self.mrr = trained, plan, teacher, config, mrr
        self.answers = (teacher.prompt.true_id, teacher.prompt.false_id)
        reference = trained.reference
        self.reference = None if reference is None else Backbone(reference, teacher.backbone.tokenizer)
        self.counts = {"pairs": 0, "tokens": 0}

    def run(self, resume: Path | None) -> dict[str, Any]:
        """Train to the end, or to the first interrupt."""
        begin = time.perf_counter()
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self.report.on_interrupt) if main else None
        try:
            self.train(resume_from_checkpoint=None if resume is None else str(resume))
        finally:
            if main:
                signal.signal(signal.SIGINT, before)
        if self.report.interrupted:
            raise KeyboardInterrupt
        mrrs = [(entry["step"], entry["eval_mrr"]) for entry in self.state.log_history if "eval_mrr" in entry]
        return {
            "steps": self.state.global_step,
            "best_step": self.state.best_global_step,
            "dev_mrr": self.state.best_metric,
            "dev_mrr_by_step": mrrs,
            "final_loss": sum(self.report.losses[-20:]) / max(1, len(self.report.losses[-20:])),
            **self.counts,
            "seconds": round(time.perf_counter() - begin, 1),
        }

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over one step's pairs, a token-budget batch at a time."""
        model.train()
        pairs = self.plan.step(int(inputs["step"]))
        prompt = self.teacher.prompt
        ids = [prompt.document_ids(pair.document) + prompt.query_ids(pair.query) for pair in pairs]
        right = torch.tensor([pair.right for pair in pairs])
        total = torch.zeros(())
        with self.trained.autocast():
            for loss in answer_losses(self.trained.backbone, ids, right, self.answers, self.config, self.reference):
                self.accelerator.backward(loss)
                total += loss.detach().cpu()
        self.counts["pairs"] += len(pairs)
        self.counts["tokens"] += sum(map(len, ids))
        return total

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """MRR on the dev candidates."""
        self.trained.backbone.model.train(False)
        with self.trained.autocast():
            metrics = {"eval_mrr": self.mrr()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Nothing yet: the weights go into the same file as the optimiser."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        path = Path(output_dir) / _STATE
        try:
            save_state(path, self.trained.parameters, self._plain_optimizer(), self._scheduler(), dict(self.counts))
        except OSError as error:
            shutil.rmtree(output_dir, ignore_errors=True)
            raise InputError(
                f"the checkpoint {output_dir} could not be written: {error}",
                hint="free some space and run the same command again; it goes on from the checkpoint before",
            ) from error

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            path = Path(checkpoint) / _STATE
            counts = load_state(path, self.trained.parameters, self._plain_optimizer(), self._scheduler())
            self.counts.update(counts)
            self.report.task.advance(self.state.global_step)

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        assert isinstance(optimizer, torch.optim.Optimizer)
        return optimizer

    def _scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        assert self.lr_scheduler is not None  # the Trainer makes it before the first step
        return self.lr_scheduler

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing: random states are in the same file as the optimiser."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: loaded with the optimiser."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(Path(resume_from_checkpoint) / _STATE, self.trained.parameters)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is not None:
            load_weights(Path(best) / _STATE, self.trained.parameters)
