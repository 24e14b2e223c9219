"""What neural families share: their device, their size, and a model folder of one `config.json` and one
`model.safetensors`. Writes and reads such folders."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textmill import __version__
from textmill.base.errors import Failure, UsageError
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
        return model.placed(device, precision)

    def placed(self, device: str | torch.device | None, precision: Literal["bf16", "fp32"]) -> Self:
        """The model on its device (the GPU when there is one, else the CPU), in evaluation mode."""
        if precision == "bf16" and self.bf16:
            self.compute_dtype = torch.bfloat16
        return self.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


@contextlib.contextmanager
def reading_model(folder: Path) -> Iterator[None]:
    """Inside, what is wrong with the files of a model folder becomes a `Failure` that says so."""
    try:
        yield
    except FileNotFoundError as error:
        raise Failure(
            f"{folder} holds no whole model.",
            f"{Path(str(error.filename or folder)).name} is missing.",
            f"Give a folder with {CONFIG} and {WEIGHTS}, such as the run that `textmill build` made.",
        ) from error
    except (ValueError, KeyError, TypeError, SafetensorError, UsageError) as error:  # JSON and Unicode errors too
        raise Failure(
            f"The model in {folder} cannot be read.",
            f"A file is damaged or was not made by Textmill ({type(error).__name__}: {error}).",
            "Train it again with the command in run.json (finished stages are not redone), or fetch it again.",
        ) from error


def read_folder(folder: Path, config_class: type) -> tuple[Any, dict[str, Tensor]]:
    """Configuration and weights of a model folder.

    Raises:
        Failure: a file is missing or damaged.
    """
    with reading_model(folder):
        config: Any = from_mapping(config_class, read_json(folder / CONFIG)["textmill"])
        return config, dict(load_file(folder / WEIGHTS))


def read_stock_folder(folder: Path, model_type: str, classes: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and weights of a folder that a class of `transformers` wrote.

    Args:
        folder: holds config.json and model.safetensors.
        model_type: what config.json has to say.
        classes: the classes that are meant, for the error.

    Raises:
        Failure: a file is missing or damaged.
        UsageError: it is a model of another type.
    """
    with reading_model(folder):
        record: dict[str, Any] = dict(read_json(folder / CONFIG))
        stored = dict(load_file(folder / WEIGHTS))
    if record.get("model_type") != model_type:
        raise UsageError(
            f"{folder} holds no {model_type.upper()}.",
            f'Its config.json says "model_type": {json.dumps(record.get("model_type"))}.',
            f"Give the folder of a {classes}.",
        )
    return record, stored


def has_model_type(folder: Path, model_type: str) -> bool:
    """Whether a folder says that it is a stock model of this type; opening it says what is wrong."""
    try:
        return bool(read_json(folder / CONFIG).get("model_type") == model_type)
    except (OSError, ValueError, AttributeError):
        return False


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
        *([f"missing: {some(missing)}"] if missing else []),
        *([f"unknown: {some(extra)}"] if extra else []),
        *([f"of another shape: {some(shapes)}"] if shapes else []),
    ]
    if problems:
        raise Failure(
            f"The weights in {where} do not fit its configuration.",
            f"Tensors {'; '.join(problems)}.",
            "Its config.json and its weights are of different models, or a file is damaged.",
        )


def some(names: list[str], most: int = 5) -> str:
    """The first few of many names, for an error."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
