"""An RNN, GRU or LSTM as a Keras 3 model file. Imports `keras` when asked, on TensorFlow where there is one.

Keras keeps matrices as [in, out]. The gates of an LSTM stand in torch's order (i f g o; Keras calls g c), those of a
GRU do not (Keras z r n, torch r z n); a GRU with `reset_after` has two rows of biases.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from textmill.base.errors import Failure, UsageError
from textmill.models.recurrent.networks import Recurrent
from textmill.tokens.tokenizer import Tokenizer


def import_keras() -> Any:
    """Keras 3, on the backend that `KERAS_BACKEND` names, else on TensorFlow if it is installed, else on torch.

    Raises:
        Failure: it is not installed.
    """
    if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
        os.environ["KERAS_BACKEND"] = "torch"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        import keras
    except ImportError as error:
        raise Failure(
            "Keras is not installed.", f"{error}.", "Install it with: pip install 'textmill[keras]'"
        ) from error
    if int(keras.__version__.split(".")[0]) < 3:
        raise Failure(
            f"Keras {keras.__version__} is too old for the .keras format of Keras 3.",
            fix="Install a newer one with: pip install 'textmill[keras]'",
        )
    return keras


def _array(value: Tensor) -> np.ndarray:
    return value.detach().float().cpu().numpy()


def _gates(matrix: np.ndarray, kind: str) -> np.ndarray:
    """Rows of stacked gates in Keras' order."""
    if kind != "gru":
        return matrix
    r, z, n = np.split(matrix, 3)
    return np.concatenate((z, r, n))


def cell_weights(layer: Any) -> list[np.ndarray]:
    """Kernel [D, G H], recurrent kernel [H, G H] and bias as Keras has them for this layer."""
    kernel, recurrent, bias = (_gates(_array(value), layer.kind) for value in (layer.input, layer.hidden, layer.bias))
    if layer.kind == "gru":
        second = np.zeros_like(bias)
        second[-layer.hidden_size :] = _array(layer.reset_bias)
        bias = np.stack((bias, second))
    return [np.ascontiguousarray(kernel.T), np.ascontiguousarray(recurrent.T), bias]


def keras_model(model: Recurrent) -> Any:
    """A Keras model from token ids [B, T] to the next token's probabilities [B, T, V] after each.

    Raises:
        UsageError: the family has no counterpart among Keras' layers.
    """
    if not isinstance(model, Recurrent):
        raise UsageError(
            f'A model of the family "{getattr(model, "family", type(model).__name__)}" has no counterpart in Keras.',
            "Keras' own layers hold an RNN, a GRU or an LSTM.",
            "Train with --family lstm, or export to ONNX: --to onnx",
        )
    keras = import_keras()
    config = model.config
    cells = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
    options = {"reset_after": True} if config.kind == "gru" else {}
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embedding = keras.layers.Embedding(config.vocabulary, config.embedding_size, name="embedding")
    x = embedding(tokens)
    layers = []
    for index, layer in enumerate(model.layers):
        cell = cells[config.kind](
            layer.hidden_size, return_sequences=True, name=f"{config.kind}_{index}", dropout=0.0, **options
        )
        x = cell(x)
        layers.append((cell, layer))
    dense = keras.layers.Dense(config.vocabulary, activation="softmax", use_bias=config.output_bias, name="output")
    outputs = dense(x)
    embedding.set_weights([_array(model.embedding.weight)])
    for cell, layer in layers:
        cell.set_weights(cell_weights(layer))
    head = [np.ascontiguousarray(_array(model.head_weight).T)]
    dense.set_weights([*head, _array(model.head_bias)] if model.head_bias is not None else head)
    return keras.Model(tokens, outputs, name=f"textmill_{config.kind}")


def export_keras(model: Recurrent, tokenizer: Tokenizer | None, path: Path) -> list[Path]:
    """Write a `.keras` file, and beside it the tokenizer whose ids it reads.

    A document is read after one document-end token; the file's probabilities at a token are those of the token after
    it, with the state starting empty at each row's beginning.

    Args:
        model: an RNN, GRU or LSTM.
        tokenizer: written as `NAME.tokenizer.json` (opens in `tokenizers`); None for none.
        path: ends in `.keras`.

    Returns:
        the files written.

    Raises:
        UsageError: another family, or another ending.
        Failure: Keras is not installed, or the file cannot be written.
    """
    if path.suffix != ".keras":
        raise UsageError(f"{path} does not end in .keras.", fix=f"Write to {path.with_suffix('.keras')}.")
    built = keras_model(model)
    partial = path.with_name(f".{path.stem}.partial.keras")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        built.save(partial)
        partial.replace(path)
        written = [path]
        if tokenizer is not None:
            beside = path.with_suffix(".tokenizer.json")
            beside.write_text(tokenizer.to_json(), encoding="utf-8")
            written.append(beside)
    except OSError as error:
        raise Failure(f"{path} could not be written.", f"{error}.", "Choose another place.") from error
    finally:
        partial.unlink(missing_ok=True)
    return written
