"""Checkpoints survive damage: the one before is used; the journal survives a torn last line."""

import pytest
import torch

from textmill.training.checkpoints import Journal, load_checkpoint, save_checkpoint


def save(folder, step):
    save_checkpoint(folder, step, {"weights": torch.full((1000,), float(step)), "step": step})


def test_the_newest_is_loaded_and_old_ones_are_removed(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step)
    state, problems = load_checkpoint(tmp_path)
    assert state["step"] == 30
    assert torch.equal(state["weights"], torch.full((1000,), 30.0))
    assert problems == []
    assert len(list(tmp_path.glob("*.pt"))) == 2


def truncate(data):
    return data[: len(data) // 2]


def flip(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip, lambda data: b""])
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path, damage):
    save(tmp_path, 10)
    save(tmp_path, 20)
    file = tmp_path / "step-00000020.pt"
    file.write_bytes(damage(file.read_bytes()))
    state, problems = load_checkpoint(tmp_path)
    assert state["step"] == 10
    assert len(problems) == 1
    assert "step-00000020" in problems[0]
    save(tmp_path, 15)  # going on from there: the damaged one is out of the way
    assert load_checkpoint(tmp_path)[0]["step"] == 15


def test_weights_without_their_mark_do_not_count(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 20)
    (tmp_path / "step-00000020.json").unlink()  # killed between the two writes
    assert load_checkpoint(tmp_path)[0]["step"] == 10


def test_nothing_is_left_when_all_are_damaged(tmp_path):
    save(tmp_path, 10)
    (tmp_path / "step-00000010.json").write_text("{")
    state, problems = load_checkpoint(tmp_path)
    assert state is None
    assert len(problems) == 1


def test_the_journal_keeps_decisions_and_forgets_on_purpose(tmp_path):
    journal = Journal(tmp_path / "journal.json")
    journal.add({"step": 20, "kind": "total", "total": 100})
    journal.add({"step": 40, "kind": "micro_rows", "micro_rows": 4})
    again = Journal(tmp_path / "journal.json")
    assert again.at(20, "total")["total"] == 100
    assert again.at(20, "micro_rows") is None
    again.forget_after(30)
    assert Journal(tmp_path / "journal.json").at(40, "micro_rows") is None


def test_a_torn_line_of_the_journal_is_ignored(tmp_path):
    (tmp_path / "journal.json").write_text('{"step": 20, "kind": "total", "total": 100}\n{"step": 4')
    assert len(Journal(tmp_path / "journal.json").entries) == 1
