"""What neural families share: their device, their size, and a model folder of one `config.json` and one
`model.safetensors`. Writes and reads such folders."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textmill import __version__
from textmill.base.errors import Failure
from textmill.base.files import read_json, write_json
from textmill.base.settings import from_mapping

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
FAMILY_KEY = "textmill_family"


class NeuralModel(nn.Module):
    """An `nn.Module` that is a language model of some family.

    A family is a subclass that sets the class attributes, takes its configuration in its constructor, and has
    `start`, `read`, `target_log_probs`, `training_loss` and `parameter_roles`.

    Attributes:
        family: its name in `models/families.py`.
        config_class: the dataclass of its configuration.
        objective: what it is trained on, a name of `training/objectives.py`.
        carries: whether training carries its state from batch to batch.
        bf16: whether its matrix products may be computed in bf16 (`compute_dtype`).
        config: the configuration.
        vocabulary: number of token ids, V.
        context: tokens that a prediction can look back on; None without a limit.
    """

    family: ClassVar[str]
    config_class: ClassVar[type]
    objective: ClassVar[str] = "next-token"
    carries: ClassVar[bool] = False
    bf16: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config: Any = config
        self.vocabulary: int = config.vocabulary
        self.context: int | None = config.context
        self.compute_dtype = torch.float32

    @property
    def size(self) -> int:
        """Number of trained values."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def start(self, batch: int) -> Any:
        """The state before any token (protocol `LanguageModel`)."""
        raise NotImplementedError

    def read(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Log-probabilities [B, T, V] of what follows each token, and the new state (protocol `LanguageModel`)."""
        raise NotImplementedError

    def target_log_probs(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Log-probability in nats [B, T] of each target, rows from a fresh state; 0 where the target is -1."""
        raise NotImplementedError

    def training_loss(self, batch: dict[str, Tensor], scale: float, state: Any = None) -> tuple[Tensor, Any]:
        """The sum of nats over the targets of a batch times `scale`, other terms added; and the state carried on."""
        raise NotImplementedError

    def parameter_roles(self) -> dict[str, list[nn.Parameter]]:
        """Every parameter once: "matrix", "table", "added_table", "head", "dense" or "scalar"."""
        raise NotImplementedError

    def save(self, folder: Path, document_end: int | None) -> None:
        """Write `config.json` and `model.safetensors` (fp32) into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        weights: dict[str, Tensor] = {}
        seen: dict[int, str] = {}
        for name, value in self.state_dict().items():
            if seen.setdefault(value.data_ptr(), name) != name and value.numel():
                continue  # tied: stored once under its first name
            weights[name] = value.detach().to("cpu", torch.float32).contiguous()
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        write_json(
            folder / CONFIG,
            {
                FAMILY_KEY: self.family,
                "textmill": asdict(self.config),
                "textmill_version": __version__,
                "document_end": document_end,
                "model_type": f"textmill-{self.family}",
            },
        )

    @classmethod
    def load(
        cls, folder: Path, device: str | torch.device | None = None, precision: Literal["bf16", "fp32"] = "fp32"
    ) -> Self:
        """Open a folder that `save` wrote, in evaluation mode.

        Raises:
            Failure: a file is missing or damaged, or a weight is missing, unknown or of another shape.
        """
        config, weights = read_folder(folder, cls.config_class)
        model = cls(config)
        own = model.state_dict()
        tied: dict[int, str] = {}
        for name, value in own.items():
            first = tied.setdefault(value.data_ptr(), name)
            if name not in weights and first in weights:
                weights[name] = weights[first]
        check_weights(folder, {name: tuple(value.shape) for name, value in own.items()}, weights)
        model.load_state_dict(weights)
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if precision == "bf16" and cls.bf16:
            model.compute_dtype = torch.bfloat16
        return model.to(place).eval()


def read_folder(folder: Path, config_class: type) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights of a model folder.

    Raises:
        Failure: a file is missing or damaged.
    """
    try:
        record = read_json(folder / CONFIG)
        config: Any = from_mapping(config_class, record["textmill"])
        return config, dict(load_file(folder / WEIGHTS))
    except FileNotFoundError as error:
        raise Failure(
            f"{folder} holds no whole model.",
            f"{Path(str(error.filename or folder)).name} is missing.",
            "Give the folder that `textmill build` or `textmill train` made, such as runs/mine.",
        ) from error
    except (json.JSONDecodeError, KeyError, SafetensorError, TypeError) as error:
        raise Failure(
            f"The model in {folder} cannot be read.",
            f"A file is damaged or was not made by Textmill ({type(error).__name__}: {error}).",
            "Train it again with the command in run.json; finished stages are not redone.",
        ) from error


def check_weights(where: Path, wanted: dict[str, tuple[int, ...]], found: dict[str, Tensor]) -> None:
    """Compare the weights that a model has with those of a file.

    Raises:
        Failure: names the missing, unknown and misshapen ones.
    """
    missing = sorted(set(wanted) - set(found))
    extra = sorted(set(found) - set(wanted))
    shapes = [
        f"{name} is {tuple(found[name].shape)}, not {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    problems = [
        *([f"missing: {_some(missing)}"] if missing else []),
        *([f"unknown: {_some(extra)}"] if extra else []),
        *([f"of another shape: {_some(shapes)}"] if shapes else []),
    ]
    if problems:
        raise Failure(
            f"The weights in {where} do not fit its configuration.",
            f"Tensors {'; '.join(problems)}.",
            "Its config.json and its weights are of different models, or a file is damaged.",
        )


def _some(names: list[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
