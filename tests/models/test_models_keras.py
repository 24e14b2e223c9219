"""A `.keras` file gives the same probabilities under TensorFlow, in a process that knows nothing of Textmill."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from textmill.base.errors import UsageError
from textmill.models.export.keras import export_keras
from textmill.models.recurrent import Gru, Lstm, MinGru, MinGruConfig, RecurrentConfig, Rnn

READ = """
import os, sys, json
os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
import numpy as np, keras
folder = sys.argv[1]
tokens = np.load(f"{folder}/tokens.npy")
for kind in sys.argv[2:]:
    model = keras.saving.load_model(f"{folder}/{kind}.keras")
    np.save(f"{folder}/{kind}.npy", model.predict_on_batch(tokens))
print(json.dumps([keras.backend.backend(), [type(layer).__name__ for layer in model.layers], "torch" in sys.modules]))
"""


@pytest.mark.slow
def test_the_same_probabilities_under_tensorflow(tmp_path):
    pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    torch.manual_seed(3)
    tokens = torch.randint(0, 80, (3, 19))
    np.save(tmp_path / "tokens.npy", tokens.numpy())
    wanted = {}
    for kind, family in (("rnn", Rnn), ("gru", Gru), ("lstm", Lstm)):
        config = RecurrentConfig(
            kind=kind, vocabulary=80, width=24, embedding=16, tied_head=kind != "gru", output_bias=kind != "gru"
        )
        model = family(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        assert export_keras(model, None, tmp_path / f"{kind}.keras") == [tmp_path / f"{kind}.keras"]
        wanted[kind] = model(tokens).softmax(-1).detach().numpy()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), *wanted], capture_output=True, text=True, check=True
    )
    backend, layers, torch_there = json.loads(done.stdout.splitlines()[-1])
    assert (backend, torch_there) == ("tensorflow", False)
    assert layers[1:] == ["Embedding", "LSTM", "LSTM", "Dense"]
    for kind, values in wanted.items():
        found = np.load(tmp_path / f"{kind}.npy")
        assert found.shape == (3, 19, 80)
        assert np.abs(found - values).max() < 1e-5, kind
        assert np.abs(np.log(found) - np.log(values)).max() < 1e-3, kind


def test_what_keras_has_no_layer_for_is_refused(tmp_path):
    with pytest.raises(UsageError, match="mingru"):
        export_keras(MinGru(MinGruConfig(vocabulary=80, width=16, layers=1)), None, tmp_path / "model.keras")
    with pytest.raises(UsageError, match=r"model\.keras"):
        export_keras(Lstm(RecurrentConfig(vocabulary=80, width=16)), None, tmp_path / "model.h5")
    assert list(tmp_path.iterdir()) == []
