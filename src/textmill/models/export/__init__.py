"""Models for other programs: Keras 3 (`keras.py`) and ONNX (`onnx.py`)."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(__name__, {"export_keras": "keras", "export_onnx": "onnx"})
