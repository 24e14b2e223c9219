"""A GGUF file in a run's place: served under its name, its weights as they are."""

from __future__ import annotations

from pathlib import Path

import torch

from textmill.generation.config import SamplingConfig
from textmill.generation.engine import EngineConfig
from textmill.models.exporter import export_gguf
from textmill.models.gguf.stored import StoredLinear
from textmill.models.load import save_model
from textmill.models.presets import arrange
from textmill.models.transformer import Transformer
from textmill.serving.library import Library
from textmill.serving.metrics import Metrics
from textmill.tokens.tokenizer import Tokenizer


def test_a_gguf_file_is_served_as_it_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Transformer(arrange("llama3", layers=2, width=64, heads=4, vocabulary=768, context=64)).eval()
    save_model(model, tmp_path / "model", document_end=tokenizer.document_end)
    tokenizer.save(tmp_path / "model")
    export_gguf(tmp_path / "model", tmp_path / "tiny.Q8_0.gguf", "q8_0")
    library = Library(EngineConfig(), Metrics())
    served = library.load(tmp_path / "tiny.Q8_0.gguf")
    try:
        assert served.name == "tiny.Q8_0"
        assert served.family == "transformer"
        assert served.run is None
        assert served.opened is not None
        assert served.engine is not None
        assert any(isinstance(one, StoredLinear) for one in served.opened.model.modules())  # type: ignore[attr-defined]
        [one] = served.engine.submit("The people", SamplingConfig(temperature=0, max_tokens=5)).results()
        assert len(one.ids) == 5
    finally:
        library.close(1)
