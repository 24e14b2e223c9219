"""Entries of the config.json of `transformers`: read so that an error names them, and what all decoders share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from textmill.base.errors import Failure
from textmill.models import transformer_shape as shape
from textmill.models.config import TransformerConfig

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu-exact",
}
LOCAL, GLOBAL = "sliding_attention", "full_attention"


class Fields:
    """The entries of a config.json, read so that what is missing or not supported is named."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values, self.source = values, source

    def need(self, name: str) -> Any:
        """An entry that has to be there."""
        if self.values.get(name) is None:
            raise Failure(f"{self.source} lacks {name}.", "The model's shape cannot be told without it.")
        return self.values[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An entry, or the default where it is missing or null."""
        value = self.values.get(name)
        return default if value is None else value

    def refuse(self, name: str, why: str) -> None:
        """Stop when this entry is set."""
        if self.values.get(name):
            raise Failure(f"{self.source} sets {name} to {self.values[name]!r}.", why)

    def activation(self, *names: str) -> str:
        """The activation function under the first of these names."""
        given = next((self.values[name] for name in names if self.values.get(name)), None)
        if given not in ACTIVATIONS:
            raise Failure(
                f'{self.source} asks for the activation "{given}".', f"Supported: {', '.join(sorted(ACTIVATIONS))}."
            )
        return ACTIVATIONS[given]


def pattern_of(kinds: list[str], source: str) -> str:
    """The shortest window_pattern that gives these layer_types."""
    unknown = sorted(set(kinds) - {LOCAL, GLOBAL})
    if unknown:
        raise Failure(f'{source} has layers of type "{unknown[0]}".', f"Supported: {GLOBAL}, {LOCAL}.")
    letters = "".join("L" if kind == LOCAL else "G" for kind in kinds)
    for size in range(1, len(letters) + 1):
        if (letters[:size] * len(letters))[: len(letters)] == letters:
            return letters[:size]
    return letters


def layer_types(config: TransformerConfig) -> list[str]:
    """The kind of each layer's attention, in the words of `transformers`."""
    return [LOCAL if shape.is_local(config, layer) else GLOBAL for layer in range(config.layers)]


def read_rotary(fields: Fields, base: float = 10000.0) -> dict[str, Any]:
    """Rotary settings, from `rope_parameters` or the older `rope_theta` and `rope_scaling`."""
    given = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    found: dict[str, Any] = {"rotary_base": float(given.get("rope_theta", fields.get("rope_theta", base)))}
    share = given.get("partial_rotary_factor", fields.get("partial_rotary_factor", 1.0))
    if kind not in ("default", "linear", "llama3") or share != 1.0:
        raise Failure(
            f'{fields.source} asks for rotary positions of type "{kind}" on {share:.0%} of each head.',
            "Supported: default, linear and llama3, on the whole head.",
        )
    if kind == "default":
        return found
    found |= {"rotary_scaling": kind, "rotary_factor": float(given["factor"])}
    if kind == "llama3":
        found |= {
            "rotary_low": float(given["low_freq_factor"]),
            "rotary_high": float(given["high_freq_factor"]),
            "rotary_original": int(given["original_max_position_embeddings"]),
        }
    return found


def write_rotary(config: TransformerConfig) -> dict[str, Any]:
    if config.rotary_scaling == "none":
        return {"rope_theta": config.rotary_base, "rope_scaling": None}
    scaling: dict[str, Any] = {"rope_type": config.rotary_scaling, "factor": config.rotary_factor}
    if config.rotary_scaling == "llama3":
        scaling |= {
            "low_freq_factor": config.rotary_low,
            "high_freq_factor": config.rotary_high,
            "original_max_position_embeddings": config.rotary_original,
        }
    return {"rope_theta": config.rotary_base, "rope_scaling": scaling}
