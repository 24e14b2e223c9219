"""Transformer, RNN, GRU and LSTM as ONNX files for `onnxruntime`. Imports `onnx` when asked.

A recurrent model becomes a graph of ONNX's own operators with the state as inputs and outputs, written out here, since
tracing would unroll the loop over time. A Transformer is traced by `torch.export`. Rows and length are free in both.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from textmill import __version__
from textmill.base.errors import Failure, UsageError
from textmill.models.recurrent.networks import Recurrent
from textmill.models.transformer import Transformer

OPSET = 18
LARGEST_FILE = 1_800_000_000
"""Bytes of weights that fit into one file; protobuf ends at 2 GB, and larger ones go into a file beside it."""

ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}
"""Where ONNX's gates (LSTM i o f c, GRU z r h) stand in torch's (i f g o; r z n)."""


def import_onnx() -> Any:
    """The package `onnx`.

    Raises:
        Failure: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise Failure("ONNX is not installed.", f"{error}.", "Install it with: pip install 'textmill[onnx]'") from error
    return onnx


def _array(value: Tensor) -> np.ndarray:
    return np.ascontiguousarray(value.detach().float().cpu().numpy())


def _stacked(value: Tensor, kind: str) -> np.ndarray:
    """Stacked gates [G H, ...] in ONNX's order."""
    parts = np.split(_array(value), len(ORDER[kind]))
    return np.concatenate([parts[i] for i in ORDER[kind]])


def _bias(layer: Any) -> np.ndarray:
    """Both biases of a layer, [2 G H]; ours is the first, and a GRU's reset bias lies in the second."""
    first = _stacked(layer.bias, layer.kind)
    second = np.zeros_like(first)
    if layer.kind == "gru":
        second[-layer.hidden_size :] = _array(layer.reset_bias)
    return np.concatenate((first, second))


def recurrent_graph(model: Recurrent) -> Any:
    """The ONNX model: `tokens` [rows, length] and the state of each layer to `logits` [rows, length, V] and new state.

    State inputs are called `hidden_0`, `cell_0`, …, each [rows, H], zero at a document's beginning; the outputs
    `next_hidden_0`, … are the next call's inputs.
    """
    onnx = import_onnx()
    helper, numpy_helper, kinds = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    config = model.config
    nodes: list[Any] = []
    weights: list[Any] = []

    def constant(name: str, value: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def node(kind: str, inputs: list[str], outputs: list[str], **options: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, outputs, name=outputs[0] or outputs[1], **options))
        return outputs[0]

    def shaped(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, kinds.FLOAT, shape)

    inputs = [helper.make_tensor_value_info("tokens", kinds.INT64, ("rows", "length"))]
    outputs = [shaped("logits", "rows", "length", config.vocabulary)]
    first_axis = constant("first_axis", np.array([0], dtype=np.int64))
    direction = constant("direction_axis", np.array([1], dtype=np.int64))
    table = constant("embedding", _array(model.embedding.weight))
    x = node("Transpose", [node("Gather", [table, "tokens"], ["vectors"])], ["time_first"], perm=[1, 0, 2])
    states = ("hidden", "cell") if config.kind == "lstm" else ("hidden",)
    for index, layer in enumerate(model.layers):
        size = layer.hidden_size
        given, after = [], []
        for state in states:
            name = f"{state}_{index}"
            inputs.append(shaped(name, "rows", size))
            outputs.append(shaped(f"next_{name}", "rows", size))
            given.append(node("Unsqueeze", [name, first_axis], [f"{name}_given"]))
            after.append(f"{name}_after")
        operands = [
            x,
            constant(f"input_{index}", _stacked(layer.input, config.kind)[None]),
            constant(f"recurrent_{index}", _stacked(layer.hidden, config.kind)[None]),
            constant(f"bias_{index}", _bias(layer)[None]),
            "",
            *given,
        ]
        options: dict[str, Any] = {"hidden_size": size}
        if config.kind == "gru":
            options["linear_before_reset"] = 1
        node(config.kind.upper(), operands, [f"layer_{index}", *after], **options)
        for state, end in zip(states, after, strict=True):
            node("Squeeze", [end, first_axis], [f"next_{state}_{index}"])
        x = node("Squeeze", [f"layer_{index}", direction], [f"outputs_{index}"])
    x = node("Transpose", [x], ["rows_first"], perm=[1, 0, 2])
    head = table if config.tied_head else constant("head", _array(model.head_weight))
    matrix = node("Transpose", [head], ["output_matrix"], perm=[1, 0])
    if model.head_bias is None:
        node("MatMul", [x, matrix], ["logits"])
    else:
        product = node("MatMul", [x, matrix], ["product"])
        node("Add", [product, constant("output_bias", _array(model.head_bias))], ["logits"])
    graph = helper.make_graph(nodes, f"textmill-{config.kind}", inputs, outputs, weights)
    return helper.make_model(
        graph,
        producer_name="textmill",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )


class _Logits(nn.Module):
    """What is traced of a Transformer."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.model(tokens)
        return result


def transformer_graph(model: Transformer) -> Any:
    """The ONNX model: `tokens` [rows, length] to `logits` [rows, length, V]; length at most the context.

    Raises:
        Failure: the exporter of torch is not installed, or does not know a part of the model.
    """
    import_onnx()
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise Failure(
            "The ONNX exporter of torch is not whole.", f"{error}.", "Install it with: pip install 'textmill[onnx]'"
        ) from error
    example = torch.zeros(2, min(8, model.config.context), dtype=torch.int64, device=model.device)
    rows, length = torch.export.Dim("rows"), torch.export.Dim("length", max=model.config.context)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                _Logits(model).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["tokens"],
                output_names=["logits"],
                dynamic_shapes={"tokens": {0: rows, 1: length}},
                verbose=False,
            )
    except Exception as error:
        raise Failure(
            "This Transformer could not be exported to ONNX.",
            f"torch's exporter says: {str(error).strip().splitlines()[0]}",
            "Export it to Hugging Face's format instead.",
        ) from error
    assert program is not None
    return program.model_proto


def export_onnx(model: Any, path: Path) -> list[Path]:
    """Write an `.onnx` file with fp32 weights.

    A document is read after one document-end token. Transformer: input `tokens`, output `logits`. RNN, GRU and LSTM:
    state inputs and outputs besides (`recurrent_graph`).

    Args:
        model: a Transformer, RNN, GRU or LSTM.
        path: ends in `.onnx`.

    Returns:
        the files written (two where the weights are larger than one file may be).

    Raises:
        UsageError: another family, or another ending.
        Failure: `onnx` is not installed, or the file cannot be written.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"{path} does not end in .onnx.", fix=f"Write to {path.with_suffix('.onnx')}.")
    if not isinstance(model, Recurrent | Transformer):
        raise UsageError(
            f'A model of the family "{getattr(model, "family", type(model).__name__)}" cannot be exported to ONNX.',
            "Transformers, RNNs, GRUs and LSTMs can.",
        )
    onnx = import_onnx()
    before = model.compute_dtype
    model.compute_dtype = torch.float32
    try:
        proto = recurrent_graph(model) if isinstance(model, Recurrent) else transformer_graph(model)
    finally:
        model.compute_dtype = before
    large = 4 * sum(value.numel() for value in model.state_dict().values()) > LARGEST_FILE
    data = path.with_name(f"{path.name}.data")
    partial = path.with_name(f".{path.stem}.partial.onnx")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if large:
            data.unlink(missing_ok=True)
            onnx.save_model(proto, str(partial), save_as_external_data=True, location=data.name)
        else:
            onnx.save_model(proto, str(partial))
        onnx.checker.check_model(str(partial))
        partial.replace(path)
    except OSError as error:
        raise Failure(f"{path} could not be written.", f"{error}.", "Choose another place.") from error
    finally:
        partial.unlink(missing_ok=True)
    return [path, data] if large else [path]
