"""The loop's guards: memory, spikes, NaN, early stop; and that it learns real text."""

import json

import pytest
import torch

from textmill.base.errors import Failure, UsageError
from textmill.base.progress import Progress
from textmill.models.config import TransformerConfig
from textmill.models.cross_entropy import chunk_loss
from textmill.models.recurrent.config import RecurrentConfig
from textmill.models.recurrent.networks import Lstm
from textmill.models.transformer import Transformer
from textmill.tokens.batches import Batches, StreamBatches, validation_blocks
from textmill.tokens.shards import Shards
from textmill.training.config import TrainingConfig
from textmill.training.loop import Trainer
from textmill.training.state import Job

QUIET = Progress("quiet")


def make_trainer(run, folder, *, steps=60, rows=8, seconds=None, dropout=0.0, **settings):
    torch.manual_seed(0)
    index = json.loads((run / "tokens" / "index.json").read_text())
    shape = TransformerConfig(
        vocabulary=index["vocabulary"], context=64, layers=2, width=64, heads=1, bigram_buckets=1024, dropout=dropout
    )
    config = TrainingConfig(**{"validation_tokens": 4096, "checkpoint_seconds": 1000.0, **settings})
    return Trainer(
        Transformer(shape),
        Batches(Shards(run / "tokens", "train"), 64, rows, 0),
        validation_blocks(Shards(run / "tokens", "validation"), 64, 4096),
        Job(steps=steps, seconds=seconds, rows=rows, micro_rows=rows, validate_every=20),
        config,
        folder,
        compile=False,
    )


def events(trainer):
    return [entry["text"] for entry in trainer.at.log if entry["kind"] == "event"]


def validations(trainer):
    return [entry["bits_per_byte"] for entry in trainer.at.log if entry["kind"] == "validation"]


def test_it_learns(run, tmp_path):
    trainer = make_trainer(run, tmp_path, steps=100)
    done = trainer.run(QUIET)
    figures = validations(trainer)
    assert done.step == 100
    assert figures[-1] < figures[0] < 8
    assert figures[-1] < 3.2  # 11 bits a token of 3.5 bytes before learning


def test_micro_batches_give_the_same_training(run, tmp_path):
    results = []
    for micro in (8, 2):
        trainer = make_trainer(run, tmp_path / str(micro), steps=10)
        trainer.at.micro_rows = micro
        trainer.run(QUIET)
        results.append(validations(trainer)[-1])
    assert results[0] == pytest.approx(results[1], abs=2e-3)


def test_running_out_of_memory_halves_the_micro_batch_for_good(run, tmp_path):
    trainer = make_trainer(run, tmp_path, steps=10)
    limit = 3 * 64  # rows of hidden vectors that "fit"

    def scarce(logits, targets, cap, scale):
        if len(logits) > limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return chunk_loss(logits, targets, cap, scale)

    trainer.parts["kernel"] = scarce
    done = trainer.run(QUIET)
    assert done.step == 10
    assert done.micro_rows == 2
    assert sum("memory ran out" in text for text in events(trainer)) == 2
    again = make_trainer(run, tmp_path, steps=10)  # the journal knows it without failing again
    assert again.journal.at(0, "micro_rows") is not None


def test_too_little_memory_for_one_row_is_a_clear_failure(run, tmp_path):
    with pytest.raises(Failure, match="not enough memory for a single row"):
        run_with_error(run, tmp_path, MemoryError("no"))


def test_other_errors_are_not_taken_for_memory(run, tmp_path):
    with pytest.raises(RuntimeError, match="shapes do not match"):
        run_with_error(run, tmp_path, RuntimeError("shapes do not match"))


def run_with_error(run, folder, error):
    """A training whose every loss raises `error`."""
    trainer = make_trainer(run, folder, steps=10)

    def kernel(*_):
        raise error

    trainer.parts["kernel"] = kernel
    trainer.run(QUIET)


def poison(trainer, bad_steps):
    """Make the loss NaN at these steps."""

    def kernel(logits, targets, cap, scale):
        loss, gradient = chunk_loss(logits, targets, cap, scale)
        return (loss * torch.nan, gradient * torch.nan) if trainer.at.step in bad_steps else (loss, gradient)

    trainer.parts["kernel"] = kernel


def test_a_nan_step_is_skipped_and_the_weights_stay_finite(run, tmp_path):
    trainer = make_trainer(run, tmp_path, steps=40)
    poison(trainer, {7, 23})
    trainer.run(QUIET)
    assert sum("skipped" in text for text in events(trainer)) == 2
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())
    assert validations(trainer)[-1] < 8


def test_three_bad_steps_go_back_to_the_checkpoint_with_lower_rates(run, tmp_path):
    trainer = make_trainer(run, tmp_path, steps=40, checkpoint_seconds=1e-6)  # one each step
    seen = []

    def kernel(logits, targets, cap, scale):
        loss, gradient = chunk_loss(logits, targets, cap, scale)
        if trainer.at.step in (20, 21, 22) and len(seen) < 3:
            seen.append(trainer.at.step)
            return loss * torch.nan, gradient
        return loss, gradient

    trainer.parts["kernel"] = kernel
    done = trainer.run(QUIET)
    assert done.rate_factor == 0.5
    assert any("back to step" in text for text in events(trainer))
    assert done.step == 40


def test_early_stop_keeps_the_best(run, tmp_path):
    trainer = make_trainer(run, tmp_path, steps=2000, patience=2, table_rate=1e-12, head_rate=1e-12, matrix_rate=1e-12)
    trainer.config = TrainingConfig(**{**trainer.config.__dict__, "patience": 2})
    trainer.validate = iter([3.0, 2.0, 2.5, 2.4, 9.9]).__next__
    kept = []
    done = trainer.run(QUIET, on_best=lambda model, step: kept.append(step))
    assert (done.best, done.best_step, done.step) == (2.0, 40, 80)
    assert kept == [20, 40]
    assert any("stopped early" in text for text in events(trainer))


def test_the_clock_moves_the_end(run, tmp_path):
    trainer = make_trainer(run, tmp_path, steps=100_000, seconds=4.0)
    done = trainer.run(QUIET)
    assert done.step < 100_000
    assert done.seconds < 6
    assert done.schedule.level(done.step) < 0.05  # the rate fell to zero all the same


def test_a_resumed_run_takes_the_decisions_of_the_killed_one(run, tmp_path):
    first = make_trainer(run, tmp_path, steps=500, seconds=9.0, checkpoint_seconds=1e-6)
    first.job = Job(steps=500, seconds=9.0, rows=8, micro_rows=8, validate_every=1000)

    class Killed(Exception):
        pass

    step = first.step

    def until():
        if first.at.step == 22:
            raise Killed
        return step()

    first.step = until
    with pytest.raises(Killed):
        first.run(QUIET)
    decided = list(first.journal.entries)
    assert decided
    again = make_trainer(run, tmp_path, steps=500, seconds=9.0)
    assert again.journal.entries == decided
    assert again.at.schedule == first.at.schedule


def test_dropout_is_the_same_at_the_same_step(run, tmp_path):
    results = []
    for attempt in range(2):
        trainer = make_trainer(run, tmp_path / str(attempt), steps=5, dropout=0.2)
        trainer.run(QUIET)
        results.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(left, right) for left, right in zip(*results, strict=True))


def asgd_trainer(run, folder, steps, **settings):
    """A small LSTM under averaged SGD."""
    torch.manual_seed(0)
    index = json.loads((run / "tokens" / "index.json").read_text())
    model = Lstm(RecurrentConfig(vocabulary=index["vocabulary"], context=32, layers=1, width=48))
    return Trainer(
        model,
        StreamBatches(Shards(run / "tokens", "train"), 32, 8, 0),
        validation_blocks(Shards(run / "tokens", "validation"), 32, 2048),
        Job(steps=steps, seconds=None, rows=8, micro_rows=8, validate_every=5),
        TrainingConfig(optimizer="asgd", clip=0.25, checkpoint_seconds=1000.0, **settings),
        folder,
        compile=False,
    )


def test_averaged_sgd_learns_and_its_average_is_what_is_judged_and_kept(run, tmp_path):
    trainer, kept = asgd_trainer(run, tmp_path, 60), {}
    trainer.optimizers["asgd"].averaging = True  # from the first step on, as if the trigger had come

    def keep(model, step):
        kept.update({"step": step} | {name: value.clone() for name, value in model.state_dict().items()})

    trainer.run(QUIET, on_best=keep)
    assert validations(trainer)[-1] < validations(trainer)[0]
    assert kept["step"] == 60  # an average only gets better here
    average = trainer.optimizers["asgd"].state[trainer.model.embedding.weight]["average"]
    assert torch.equal(kept["embedding.weight"], average)
    assert not torch.equal(trainer.model.embedding.weight, average)  # the training itself goes on unaveraged


def test_averaged_sgd_goes_on_from_a_checkpoint_bit_for_bit(run, tmp_path):
    whole = asgd_trainer(run, tmp_path / "whole", 30)
    whole.run(QUIET)
    first = asgd_trainer(run, tmp_path / "parts", 30)
    while first.at.step < 17:
        first.step()
        if first.at.step % 5 == 0:
            first._validated(None, None)
    first.save()
    second = asgd_trainer(run, tmp_path / "parts", 30)
    second.run(QUIET)
    assert second.optimizers["asgd"].validations == whole.optimizers["asgd"].validations
    assert torch.equal(second.model.embedding.weight, whole.model.embedding.weight)


def test_the_trigger_of_averaging_puts_off_early_stopping(run, tmp_path):
    trainer = asgd_trainer(run, tmp_path, 100, patience=2)
    figures = iter([5.0, 4.0, 3.0, 3.5, 3.6, 3.7, 3.8, 3.9, *[4.0] * 50])
    trainer.validate = lambda: next(figures)
    trainer.run(QUIET)
    told = events(trainer)
    assert [text for text in told if "averaged from here on" in text]
    # Without the trigger it would have stopped at the fifth validation; it begins to average at the ninth.
    stopped = next(entry["step"] for entry in trainer.at.log if entry.get("text", "").startswith("stopped early"))
    assert stopped > 45


def test_settings_of_the_other_optimizer_are_refused():
    with pytest.raises(UsageError, match="matrix_rate has no effect with the optimizer asgd"):
        TrainingConfig(optimizer="asgd", matrix_rate=0.01)
    with pytest.raises(UsageError, match="sgd_rate has no effect with the optimizer muon"):
        TrainingConfig(sgd_rate=1.0)
