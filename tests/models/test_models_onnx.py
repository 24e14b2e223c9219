"""ONNX files give the same logits in `onnxruntime`, for any number of rows, any length, and read piece by piece."""

from pathlib import Path

import numpy as np
import pytest
import torch

from textmill.base.errors import UsageError
from textmill.models.config import TransformerConfig
from textmill.models.export.onnx import export_onnx
from textmill.models.presets import ARRANGEMENTS as PRESETS
from textmill.models.presets import arrange
from textmill.models.recurrent import Gru, Lstm, MinGru, MinGruConfig, RecurrentConfig, Rnn
from textmill.models.transformer import Transformer

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session(path: Path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def random_weights(model):
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("kind", "family"), [("rnn", Rnn), ("gru", Gru), ("lstm", Lstm)])
def test_recurrent_models_give_the_same_logits_and_states(kind, family, tied, tmp_path):
    config = RecurrentConfig(
        kind=kind, vocabulary=80, width=24, embedding=16, layers=3, tied_head=tied, output_bias=tied
    )
    model = random_weights(family(config))
    path = tmp_path / "model.onnx"
    assert export_onnx(model, path) == [path]
    run = session(path)
    names = [each.name for each in run.get_inputs()[1:]]
    for rows, length in ((1, 1), (3, 17)):
        tokens = torch.randint(0, 80, (rows, length))
        state = [torch.randn(part.shape) for part in model.start(rows)]
        hidden, after = model.hidden(tokens, state)
        given = dict(zip(names, (part.numpy() for part in state), strict=True))
        logits, *states = run.run(None, {"tokens": tokens.numpy(), **given})
        assert np.allclose(logits, model.logits(hidden).detach().numpy(), atol=1e-4)
        for ours, theirs in zip(after, states, strict=True):
            assert np.allclose(ours.detach().numpy(), theirs, atol=1e-5)


def test_reading_piece_by_piece_in_onnxruntime_equals_whole_rows(tmp_path):
    model = random_weights(Lstm(RecurrentConfig(vocabulary=80, width=24)))
    export_onnx(model, tmp_path / "model.onnx")
    run = session(tmp_path / "model.onnx")
    names = [each.name for each in run.get_inputs()[1:]]
    tokens = torch.randint(0, 80, (2, 12))
    states, pieces = [part.numpy() for part in model.start(2)], []
    for t in range(12):
        given = dict(zip(names, states, strict=True))
        logits, *states = run.run(None, {"tokens": tokens[:, t : t + 1].numpy(), **given})
        pieces.append(logits)
    assert np.allclose(np.concatenate(pieces, 1), model(tokens).detach().numpy(), atol=1e-4)


SHAPE = {"vocabulary": 96, "context": 24, "layers": 2, "width": 32, "heads": 2}
ALIKE = ("llama2", "smollm2", "qwen2", "qwen3")
"""They have no part that another has not."""
ARRANGEMENTS = {name: arrange(name, **SHAPE) for name in PRESETS if name not in ALIKE} | {
    "modern": TransformerConfig(**SHAPE, bigram_buckets=97, smear=True)
}


@pytest.mark.parametrize("name", list(ARRANGEMENTS))
def test_a_transformer_gives_the_same_logits(name, tmp_path):
    """At any length: shorter than the example that is traced, and longer than a window."""
    model = random_weights(Transformer(ARRANGEMENTS[name]))
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    run = session(path)
    for rows, length in ((1, 2), (4, 1), (3, 17), (2, 24)):
        tokens = torch.randint(0, 96, (rows, length))
        (logits,) = run.run(None, {"tokens": tokens.numpy()})
        assert np.allclose(logits, model(tokens).detach().numpy(), atol=1e-4)


def test_what_cannot_be_exported_is_refused(tmp_path):
    with pytest.raises(UsageError, match="mingru"):
        export_onnx(MinGru(MinGruConfig(vocabulary=80, width=16, layers=1)), tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"model\.onnx"):
        export_onnx(Lstm(RecurrentConfig(vocabulary=80, width=16)), tmp_path / "model.bin")
    assert list(tmp_path.iterdir()) == []
