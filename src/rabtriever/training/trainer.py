"""transformers' Trainer, told what a step of stage I is and how a checkpoint is stored without pickle."""

from __future__ import annotations

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from rabtriever.backbone import Backbone
from rabtriever.errors import InputError
from rabtriever.files import read_json, writing
from rabtriever.training.callback import Report, patience_is_out, recent_loss
from rabtriever.training.checkpoint import load_random, load_state, load_weights, save_state
from rabtriever.training.processes import Processes
from rabtriever.training.step import Step, step_losses

if TYPE_CHECKING:
    from rabtriever.progress import Task
    from rabtriever.reranker import Reranker
    from rabtriever.training.config import TeacherConfig
    from rabtriever.training.plan import Plan

__all__ = ["TeacherTrainer", "last_checkpoint", "training_arguments"]

_STATE = "state.safetensors"
_TRAINER_STATE = "trainer_state.json"


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
    arguments = TrainingArguments(
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
        logging_nan_inf_filter=False,  # it would hide a loss that is not a number behind the ones before
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        **best,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process drives one GPU; DataParallel would split single steps
    return arguments


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder; the Trainer writes its own state file last."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True):
        with suppress(InputError):  # missing, or cut short when the process was killed
            read_json(checkpoint / _TRAINER_STATE)
            if (checkpoint / _STATE).exists():
                return checkpoint
    return None


class _StepNumbers(TorchDataset[dict[str, int]]):
    """The Trainer walks over step numbers; the plan knows their pairs.

    It deals them out to the processes in turn, so each stands there once for every process.
    """

    def __init__(self, steps: int, processes: Processes) -> None:
        self.steps, self.copies = steps, processes.count

    def __len__(self) -> int:
        return self.steps * self.copies

    def __getitem__(self, place: int) -> dict[str, int]:
        return {"step": place // self.copies}


class TeacherTrainer(Trainer):
    """Trains what :class:`rabtriever.training.trained_weights.TrainedWeights` made trainable."""

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
        processes: Processes,
    ) -> None:
        self.report, self.processes = Report(task, config.patience), processes
        super().__init__(
            model=trained.backbone.model,
            args=arguments,
            train_dataset=_StepNumbers(arguments.max_steps, processes),
            eval_dataset=_StepNumbers(1, processes),
            callbacks=[self.report],
        )
        self.remove_callback(PrinterCallback)
        self.trained, self.plan, self.teacher, self.config, self.mrr = trained, plan, teacher, config, mrr
        self.answers = (teacher.prompt.true_id, teacher.prompt.false_id)
        reference = trained.reference
        self.reference = None if reference is None else Backbone(reference, teacher.backbone.tokenizer)
        self.counts = {"pairs": 0, "tokens": 0}
        self.begin = time.perf_counter()

    def run(self, resume: Path | None) -> dict[str, Any]:
        """Train to the end, or to the first interrupt."""
        self.begin = time.perf_counter()
        if resume is not None:
            state = TrainerState.load_from_json(str(resume / _TRAINER_STATE))
            if patience_is_out(state.log_history, self.config.patience):  # stopped early, then killed: no step is left
                self.args.max_steps = state.global_step
                self.train_dataset = _StepNumbers(state.global_step, self.processes)
        # Several processes would not stop after the same step: there, a resume goes on from the last checkpoint.
        main = threading.current_thread() is threading.main_thread() and self.processes.count == 1
        before = signal.signal(signal.SIGINT, self.report.on_interrupt) if main else None
        try:
            self.train(resume_from_checkpoint=None if resume is None else str(resume))
        finally:
            if main:
                signal.signal(signal.SIGINT, before)
        if self.report.interrupted:
            raise KeyboardInterrupt
        mrrs = [[entry["step"], entry["eval_mrr"]] for entry in self.state.log_history if "eval_mrr" in entry]
        return {
            "steps": self.state.global_step,
            "best_step": self.state.best_global_step,
            "dev_mrr": self.state.best_metric,
            "dev_mrr_by_step": mrrs,
            "final_loss": recent_loss(self.state.log_history),
            **self.counts,
            "seconds": round(time.perf_counter() - self.begin, 1),
        }

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over one step's pairs, a token-budget batch at a time."""
        step = Step.read(self.teacher.prompt, self.plan, int(inputs["step"]))
        model.train()
        total = torch.zeros(())
        with self.trained.autocast():
            for loss in step_losses(
                self.trained.backbone, step, self.answers, self.config, self.reference, self.processes
            ):
                self.accelerator.backward(loss)
                total += loss.detach().cpu()
        total = self._add_up(total).to(self.args.device)  # where the Trainer adds up what it logs
        self.counts["pairs"] += len(step.pairs)
        self.counts["tokens"] += step.tokens + (step.apart_tokens if self.config.apart_weight else 0)
        return total

    def _add_up(self, loss: Tensor) -> Tensor:
        """The step's gradients and its loss, over all processes, which agree on when to store a checkpoint too."""
        if self.processes.count == 1:
            self.report.save_now = self.report.is_save_due
            return loss
        for parameter in self.trained.parameters.values():
            if parameter.grad is None:  # none of the step's queries was this process's
                parameter.grad = torch.zeros_like(parameter)
            self.processes.add_up(parameter.grad)
        self.report.save_now = bool(self.processes.total(self.processes.first and self.report.is_save_due))
        return torch.tensor(self.processes.total(float(loss)))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """MRR on the dev candidates."""
        metrics = {"eval_mrr": self.mrr()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Of states that dev does not tell apart, the one that has learnt longest is kept."""
        if metrics["eval_mrr"] == self.state.best_metric:
            self.state.best_metric = math.nextafter(metrics["eval_mrr"], -math.inf)
        return super()._determine_best_metric(metrics, trial)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Only the folder: the weights go into one file with the optimiser.

        The Trainer takes a checkpoint for the best one only if its folder is there at this point.
        """
        if output_dir is not None:
            Path(output_dir).mkdir(parents=True, exist_ok=True)

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        """Step after step: the plan draws an epoch when its first step is asked for, by the model of that moment."""
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """All of it or nothing: the checkpoint before stays until this one is whole."""
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if not self.processes.first:
            super()._save_checkpoint(model, trial)
            return
        try:
            with writing(folder):
                super()._save_checkpoint(model, trial)
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.processes.first:
            return
        path = Path(output_dir) / _STATE
        so_far = {**self.counts, "seconds": time.perf_counter() - self.begin}
        save_state(path, self.trained.parameters, self._plain_optimizer(), self._scheduler(), so_far)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = Path(checkpoint) / _STATE
            counts = load_state(state, self.trained.parameters, self._plain_optimizer(), self._scheduler())
            self.begin -= float(counts.pop("seconds", 0.0))  # of the runs that this one goes on from
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
        """Once more, after the data loader has drawn its own seed, which the uninterrupted run did not do here."""
        if checkpoint is not None:
            load_random(Path(checkpoint) / _STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(Path(resume_from_checkpoint) / _STATE, self.trained.parameters)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is not None:
            load_weights(Path(best) / _STATE, self.trained.parameters)
