"""The training loop: steps from shards to weights, resumable bit for bit. Knows no family and no objective."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textmill.base.errors import Failure, Interrupted
from textmill.base.progress import Progress
from textmill.base.settings import show_count, show_duration
from textmill.tokens.batches import Batches, StreamBatches, ValidationBlocks
from textmill.training.averaged_sgd import AveragedSGD
from textmill.training.checkpoints import Journal, load_checkpoint, save_checkpoint
from textmill.training.compiler import compiled
from textmill.training.config import TrainingConfig
from textmill.training.objectives import NextToken, Objective, count_targets, rows_of
from textmill.training.optimizers import make_optimizers
from textmill.training.schedule import Schedule
from textmill.training.state import Job, TrainState, out_of_memory

REPLAN_EVERY = 20
"""Steps between looks at the clock."""


class Trainer:
    """Trains one neural model of any family on one set of shards.

    Args:
        model: fresh weights, already on their device, with `compute_dtype` set. It offers `training_loss`,
            `parameter_roles` and `target_log_probs` (models/neural.py).
        batches: the text, a pure function of (seed, step); for a model that carries its state from batch to batch
            one whose rows go on from step to step.
        validation: what is scored along the way.
        job: steps or seconds, rows.
        config: learning rates and guards.
        folder: where checkpoints and the journal live.
        compile: whether to compile what the model lets compile.
        objective: what is minimized; the next token by default.
    """

    def __init__(
        self,
        model: Any,
        batches: Batches | StreamBatches,
        validation: ValidationBlocks,
        job: Job,
        config: TrainingConfig,
        folder: Path,
        *,
        compile: bool,
        objective: Objective | None = None,
    ) -> None:
        self.model, self.batches, self.validation = model, batches, validation
        self.job, self.config, self.folder = job, config, folder
        self.journal = Journal(folder / "journal.json")
        self.objective = objective or NextToken()
        self.optimizers = make_optimizers(model, config, job.table_decay)
        parts = getattr(model, "training_parts", None)
        self.parts: dict[str, Any] = parts(compiled if compile else None) if parts else {}
        """What the model asked to be handed to each `training_loss`, such as compiled blocks."""
        self.carried: list[Any] = []
        """The state of each micro-batch after the last step, of a model that carries it on."""
        decay = 0.0 if "asgd" in self.optimizers else config.decay_share
        schedule = Schedule(job.steps, min(config.warmup_steps, max(1, job.steps // 4)), decay)
        self.at = TrainState(schedule, job.micro_rows)
        self.problems: list[str] = []
        self.stop_asked = False
        self._saved_at = 0.0
        self._resume()

    # ---- state ---------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        state, self.problems = load_checkpoint(self.folder)
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        self.carried = list(state.get("carried", []))
        self.at = TrainState.restore(state["progressed"])
        self._saved_at = self.at.seconds

    def save(self) -> None:
        """Write a checkpoint of everything needed to go on."""
        save_checkpoint(
            self.folder,
            self.at.step,
            {
                "model": self.model.state_dict(),
                **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "carried": self.carried,
                "progressed": self.at.dump(),
            },
        )
        self._saved_at = self.at.seconds

    def event(self, text: str) -> None:
        """Note something worth telling in the log."""
        self.at.log.append({"kind": "event", "step": self.at.step, "seconds": round(self.at.seconds, 3), "text": text})

    # ---- one step ------------------------------------------------------------------------------------------------

    def backward(self, step: int) -> float:
        """Gradients of one step, in micro-batches. Returns the mean loss in nats a token."""
        batch = self.objective.batch(*self.batches.batch(step), step)
        scale = 1.0 / max(1, count_targets(batch))
        total = torch.zeros(())
        carried: list[Any] = []
        for number, start in enumerate(range(0, self.job.rows, self.at.micro_rows)):
            part = rows_of(batch, start, self.at.micro_rows, self.job.rows, self.model.device)
            before = self.carried[number] if number < len(self.carried) else None
            loss, after = self.model.training_loss(part, scale, before, **self.parts)
            loss.backward()
            total += loss.detach().cpu()
            carried.append(after)
        if self.model.carries:
            self.carried = carried
        return float(total)

    def gradients(self, step: int) -> float:
        """`backward`, with the micro-batch halved for good when memory runs out."""
        known = self.journal.at(step, "micro_rows")
        if known is not None:
            self.at.micro_rows = known["micro_rows"]
        while True:
            try:
                torch.manual_seed(hash((self.config.seed, step)) & 0x7FFFFFFF)  # of dropout
                return self.backward(step)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error) or self.at.micro_rows == 1:
                    if out_of_memory(error):
                        raise Failure(
                            "There is not enough memory for a single row.",
                            f"{error}",
                            "Choose a smaller model: --plan.width 128, or --plan.context 128.",
                        ) from error
                    raise
                self._zero()
                self.at.micro_rows = max(1, self.at.micro_rows // 2)
                self.carried = []  # states of other rows now
                self.journal.add({"step": step, "kind": "micro_rows", "micro_rows": self.at.micro_rows})
                self.event(f"memory ran out: {self.at.micro_rows} rows at once from here on")
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()

    def _zero(self) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> tuple[float, float, float]:
        """One step. Returns loss (nats a token), gradient norm, level of the learning rate."""
        at, config = self.at, self.config
        loss = self.gradients(at.step)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients, foreach=True))
        level = at.schedule.level(at.step) * at.rate_factor
        spike = at.step > 50 and loss > at.loss_mean + config.spike
        if spike or not (math.isfinite(loss) and math.isfinite(norm)):
            at.skipped += 1
            self.event(f"step skipped: loss {loss:.3f}, running mean {at.loss_mean:.3f}")
            self._zero()
            at.step += 1
            return loss, norm, level
        at.skipped = 0
        if config.clip and norm > config.clip:
            torch._foreach_mul_(gradients, config.clip / (norm + 1e-6))
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * level
                if name == "muon":
                    group["momentum"] = 0.85 + (config.momentum - 0.85) * min(1.0, at.step / 200)
            optimizer.step()
        self._zero()
        at.loss_mean = loss if at.step == 0 else 0.98 * at.loss_mean + 0.02 * loss
        at.step += 1
        return loss, norm, level

    def validate(self) -> float:
        """Bits per byte on the fixed piece of the validation split."""
        model, nats = self.model, 0.0
        log_probs = getattr(model, "validation_log_probs", None) or model.target_log_probs
        model.eval()
        for start in range(0, len(self.validation.inputs), 16):
            rows = slice(start, start + 16)
            inputs = torch.from_numpy(self.validation.inputs[rows]).to(model.device)
            targets = torch.from_numpy(self.validation.targets[rows]).to(model.device)
            nats -= float(log_probs(inputs, targets).double().sum())
        model.train()
        return nats / math.log(2) / max(1, self.validation.bytes)

    # ---- the run -------------------------------------------------------------------------------------------------

    def _replan(self, step_seconds: float) -> None:
        """Move the end so that the budget is met; taken from the journal where a killed attempt decided before."""
        at = self.at
        known = self.journal.at(at.step, "total")
        if known is not None:
            if known["total"] != at.schedule.total:
                at.schedule = at.schedule.moved(at.step, known["total"])
            return
        if self.job.seconds is None:
            return  # exact steps were asked for
        left = max(0.0, self.job.seconds - at.seconds)
        total = at.step + max(1, int(left / step_seconds))
        near = at.schedule.total - at.step < 3 * REPLAN_EVERY
        if abs(total - at.schedule.total) <= 0.02 * at.schedule.total and not near:
            total = at.schedule.total
        self.journal.add({"step": at.step, "kind": "total", "total": total})
        if total != at.schedule.total:
            at.schedule = at.schedule.moved(at.step, total)

    def _roll_back(self, progress: Progress) -> bool:
        """Go back to the last checkpoint with halved rates after three bad steps in a row."""
        step, factor, log = self.at.step, self.at.rate_factor / 2, self.at.log
        if factor < 1 / 16:
            raise Failure(
                "The training does not settle.",
                f"The loss spiked again and again, at last at step {step}, with the learning rates already at a "
                f"{round(1 / self.at.rate_factor)}th.",
                "Try lower rates, e.g. --training.matrix-rate 0.005 --training.table-rate 0.05.",
            )
        seconds = self.at.seconds
        state, _ = load_checkpoint(self.folder)
        if state is None:
            return False
        self._resume()
        self.journal.forget_after(self.at.step)
        self.at.rate_factor, self.at.log, self.at.seconds, self.at.skipped = factor, log, seconds, 0
        self.event(f"three bad steps at step {step}: back to step {self.at.step} with the learning rates halved")
        progress.say(self.at.log[-1]["text"])
        self.save()
        return True

    def run(
        self,
        progress: Progress,
        on_validation: Callable[[Any, int, float], list[dict[str, Any]]] | None = None,
        on_best: Callable[[Any, int], None] | None = None,
    ) -> TrainState:
        """Train to the end of the steps or of the clock.

        Args:
            progress: where to report.
            on_validation: called with (model, step, seconds) after each validation, e.g. to draw samples; the
                entries that it returns join the log.
            on_best: called with (model, step) when a validation is the best so far.

        Raises:
            Interrupted: Ctrl-C; a checkpoint was saved.
        """
        job, at = self.job, self.at
        for problem in self.problems:
            self.event(problem)
            progress.say(f"Note: {problem}.")
        if at.step:
            self.event(f"went on from the checkpoint of step {at.step}")
            progress.say(f"Going on from step {at.step}, after {show_duration(at.seconds)} of training.")
        self.model.train()
        tokens_a_step = job.rows * self.batches.context
        recent: list[float] = []
        with progress.task("Training", at.schedule.total, "steps") as task:
            try:
                while self.at.step < self.at.schedule.total:
                    at = self.at
                    began = time.monotonic()
                    loss, norm, level = self.step()
                    elapsed = time.monotonic() - began
                    at.seconds += elapsed
                    recent = [*recent, elapsed][-REPLAN_EVERY:]
                    usual = float(np.median(recent))
                    if at.step % 10 == 0 or at.step == 1:
                        at.log.append(
                            {
                                "kind": "step",
                                "step": at.step,
                                "seconds": round(at.seconds, 3),
                                "tokens": at.step * tokens_a_step,
                                "loss": loss if math.isfinite(loss) else None,
                                "learning_rate": level,
                                "gradient_norm": norm if math.isfinite(norm) else None,
                                "tokens_per_second": round(tokens_a_step / usual, 1),
                            }
                        )
                    if at.skipped >= 3:
                        if self._roll_back(progress):
                            continue
                        at.rate_factor, at.skipped = at.rate_factor / 2, 0
                    if at.step % REPLAN_EVERY == 0 or at.step == 5:
                        self._replan(usual)
                    last = at.step >= at.schedule.total
                    if at.step % job.validate_every == 0 or last:
                        began = time.monotonic()
                        stop = self._validated(on_validation, on_best)
                        at.seconds += time.monotonic() - began
                        if stop and not last:
                            self.event(
                                f"stopped early: no better validation for {at.stale} times; the weights of step "
                                f"{at.best_step} are kept"
                            )
                            progress.say(at.log[-1]["text"])
                            break
                    best = f" · {at.best:.3f} bits per byte" if math.isfinite(at.best) else ""
                    task.update(
                        at.step,
                        f"loss {at.loss_mean:.3f}{best} · {show_count(tokens_a_step / usual)} tokens/s",
                        total=at.schedule.total,
                    )
                    if at.seconds - self._saved_at >= self.config.checkpoint_seconds and not last:
                        began = time.monotonic()
                        self.save()
                        at.seconds += time.monotonic() - began
            except KeyboardInterrupt:
                self._zero()
                self.save()
                raise Interrupted(
                    f"Stopped at step {self.at.step}; everything is saved.",
                    fix="Type the same command again to go on from here.",
                ) from None
        self.save()
        return self.at

    def _validated(
        self,
        on_validation: Callable[[Any, int, float], list[dict[str, Any]]] | None,
        on_best: Callable[[Any, int], None] | None,
    ) -> bool:
        """Validate, keep the best, and say whether to stop early."""
        at, averaging = self.at, self.optimizers.get("asgd")
        if not isinstance(averaging, AveragedSGD):
            self._judge(on_validation, on_best)
            return at.stale >= self.config.patience
        with averaging.averaged():  # the average is the model
            figure = self._judge(on_validation, on_best)
        if averaging.observe(figure):
            at.stale = 0
            self.event("validation no longer improves: the weights are averaged from here on")
        return averaging.averaging and at.stale >= self.config.patience

    def _judge(
        self,
        on_validation: Callable[[Any, int, float], list[dict[str, Any]]] | None,
        on_best: Callable[[Any, int], None] | None,
    ) -> float:
        """Validate and keep the best; bits per byte."""
        at = self.at
        figure = self.validate()
        at.log.append(
            {
                "kind": "validation",
                "step": at.step,
                "seconds": round(at.seconds, 3),
                "tokens": at.step * self.job.rows * self.batches.context,
                "bits_per_byte": figure if math.isfinite(figure) else None,
            }
        )
        if figure < at.best:
            at.best, at.best_step, at.stale = figure, at.step, 0
            if on_best is not None:
                on_best(self.model, at.step)
        else:
            at.stale += 1
        if on_validation is not None:
            self.model.eval()
            at.log.extend(on_validation(self.model, at.step, at.seconds))
            self.model.train()
        return figure
