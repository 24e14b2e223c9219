"""LoRA adapters in PEFT's folders, merged into a Transformer that shares all else with its base. Reads, writes folders.

An adapter adds scale·B·A to a matrix W [out, in], with A [r, in], B [out, r] and scale = alpha/r, or alpha/√r in
rank-stabilized adapters (Hu et al. 2021, LoRA, arXiv:2106.09685; Kalajdzievski 2023, arXiv:2312.03732). Here the sum
is made once, in float32, so that a token costs what it costs without an adapter.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from textmill.base.errors import Failure, UsageError
from textmill.base.files import write_json
from textmill.models.gguf.stored import Stored, StoredLinear
from textmill.models.safetensors_folder import PREFIXES, read_settings
from textmill.models.stock.config import stock_of
from textmill.models.stock.tensors import NAMED, Slot, slots
from textmill.models.transformer import Transformer

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
USED = {"peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "bias",
        "init_lora_weights"}  # fmt: skip
WITHOUT_EFFECT = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "exclude_modules", "lora_dropout", "fan_in_fan_out", "layers_to_transform", "layers_pattern", "megatron_config",
    "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size",
    "runtime_config", "ephemeral_gpu_offload",
}  # fmt: skip
"""Entries that say how an adapter was trained, or what its tensors' names say too. Any other that is set is refused: a
setting not known here may change what the model computes."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Ways to begin that leave the base as it is; others (PiSSA, OLoRA, …) take something out of it."""


class _Site(NamedTuple):
    """A matrix that an adapter may change.

    Attributes:
        ours: the layer's name in our Transformer.
        shape: [out, in].
        slot: how it is made of a stock model's tensors; None where the adapter names our own layers.
        part: which of those tensors.
        turned: whether the stock model keeps it as [in, out], as GPT-2 does; an adapter's matrices are [out, in] still.
    """

    ours: str
    shape: tuple[int, int]
    slot: Slot | None = None
    part: int = 0
    turned: bool = False


@dataclass(frozen=True)
class Adapted:
    """A base with an adapter.

    Attributes:
        model: a Transformer of its own, whose other tensors are the base's.
        rank: the largest.
        matrices: how many of the model's matrices are its own.
        bytes: memory of those in float32; the compiled pass packs them once more.
    """

    model: Transformer
    rank: int
    matrices: int
    bytes: int


def apply_lora(model: Any, folder: Path | str) -> Adapted:
    """A model as an adapter makes it; the base stays as it is, and has to stay so.

    Args:
        model: a Transformer, from a GGUF file too (the matrices changed are then kept in float32).
        folder: with adapter_config.json and adapter_model.safetensors, whose names are those of the stock model in
            `transformers`, or of our own layers.

    Raises:
        UsageError: there is no adapter, it is of a kind not supported, or it belongs to another model.
        Failure: a file is damaged.
    """
    folder = Path(folder)
    if not isinstance(model, Transformer):
        raise UsageError(
            f"The adapter in {folder} cannot be used with this model.", "LoRA adapters are for Transformers."
        )
    settings = _read_settings(folder)
    found = _pairs(_read_tensors(folder), str(folder))
    named = _named_sites(model, found, settings, str(folder))
    deltas: dict[str, Tensor] = {}
    ranks = [0]
    for name, site in named.items():
        a, b = found[name]
        rank, scale = _rank_and_scale(settings, name, str(folder))
        _check_pair(name, a, b, rank, site.shape, str(folder))
        delta = scale * (b.float() @ a.float())
        if not bool(torch.isfinite(delta).all()):
            raise Failure(f"The adapter in {folder} is damaged.", f"{name} holds infinite or undefined values.")
        ranks.append(rank)
        deltas[name] = delta
    return _merged(model, named, deltas, max(ranks))


def save_lora(folder: Path, matrices: Mapping[str, tuple[Tensor, Tensor]], *, alpha: float, model: str = "") -> None:
    """Write an adapter the way PEFT does.

    Args:
        folder: made if it is not there.
        matrices: (A [r, in], B [out, r]) by the layer's name: ours, such as `blocks.0.attention.query`, or that of the
            stock model, such as `model.layers.0.self_attn.q_proj`.
        alpha: the scale is alpha/r.
        model: what it belongs to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {name: a.shape[0] for name, (a, _) in matrices.items()}
    first = next(iter(ranks.values()), 1)
    weights = {
        f"{PEFT_PREFIX}{name}.lora_{letter}.weight": tensor.detach()
        .cpu()
        .contiguous()
        .clone()  # a file holds no tensor twice
        for name, pair in matrices.items()
        for letter, tensor in zip("AB", pair, strict=True)
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    record = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": model or None, "bias": "none",
        "inference_mode": True, "r": first, "lora_alpha": alpha, "lora_dropout": 0.0, "use_rslora": False,
        "target_modules": sorted(matrices),  # whole names: not every layer of a kind need be there
        "rank_pattern": {name: rank for name, rank in ranks.items() if rank != first}, "alpha_pattern": {},
    }  # fmt: skip
    write_json(folder / SETTINGS, record)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _read_settings(folder: Path) -> dict[str, Any]:
    if not (folder / SETTINGS).is_file():
        raise UsageError(
            f"There is no LoRA adapter at {folder}.",
            f"It has no {SETTINGS}." if folder.is_dir() else "There is no such folder.",
            f"Name a folder with {SETTINGS} and {WEIGHTS}, as PEFT saves it.",
        )
    settings = read_settings(folder, SETTINGS)
    if settings.get("peft_type") != "LORA":
        raise UsageError(
            f"The adapter in {folder} is of the kind {str(settings.get('peft_type'))[:100]}.",
            "Only LORA is supported.",
        )
    if settings.get("bias", "none") != "none":
        raise UsageError(f"The adapter in {folder} changes bias vectors (bias).", 'Only bias "none" is supported.')
    if settings.get("init_lora_weights") not in PLAIN_STARTS:
        raise UsageError(
            f"The adapter in {folder} began as {str(settings['init_lora_weights'])[:100]} (init_lora_weights).",
            "Its base is not the model itself, but one that something was taken out of.",
            "Save it converted: PEFT's save_pretrained(..., path_initial_model_for_weight_conversion=...).",
        )
    unknown = [name for name, value in settings.items() if value and name not in USED | WITHOUT_EFFECT]
    if unknown:
        raise UsageError(
            f"The adapter in {folder} uses {', '.join(sorted(unknown)[:NAMED])}.",
            "That is not supported: it changes more than scale·B·A added to matrices.",
            "Train it without, or merge it into its base with PEFT's merge_and_unload and import that.",
        )
    return settings


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = (folder / "adapter_model.bin").exists()
        raise UsageError(
            f"There is no {WEIGHTS} in {folder}.",
            "adapter_model.bin is a pickle, which can run any program when it is opened, so it is not."
            if pickled
            else "",
            "Save the adapter with PEFT's save_pretrained, which writes safetensors.",
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Failure(f"{path} is damaged.", str(error), "Fetch the file again.") from error


def _pairs(tensors: dict[str, Tensor], source: str) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) by the name of the layer that they belong to."""
    sides: dict[str, dict[str, Tensor]] = {}
    other: list[str] = []
    for key, tensor in tensors.items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight", key)
        if match is None:
            other.append(key)
        else:
            sides.setdefault(match[1], {})[match[2]] = tensor
    missing = [f"{name}.lora_{side}" for name, one in sides.items() for side in "AB" if side not in one]
    if other or missing or not sides:
        problems = [
            f"{what}: {', '.join(names[:NAMED])}{' …' if len(names) > NAMED else ''}."
            for what, names in (("Not supported are the tensors", other), ("Missing are", missing))
            if names
        ]
        raise UsageError(
            f"The tensors of the adapter in {source} are not those of a plain LoRA.",
            "\n".join(problems) or "There are none.",
            "Every layer needs lora_A.weight and lora_B.weight, and nothing else can be there.",
        )
    return {name: (one["A"], one["B"]) for name, one in sides.items()}


def _rank_and_scale(settings: Mapping[str, Any], name: str, source: str) -> tuple[int, float]:
    """The rank of a layer and what its product is multiplied by, patterns by name considered."""
    rank = _by_pattern(settings.get("rank_pattern") or {}, name, settings.get("r", 8), source)
    alpha = _by_pattern(settings.get("alpha_pattern") or {}, name, settings.get("lora_alpha", 8), source)
    if type(rank) is not int or rank < 1:
        raise Failure(f"The adapter in {source} is damaged.", f"The rank of {name} is {str(rank)[:50]}.")
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise Failure(f"The adapter in {source} is damaged.", f"The alpha of {name} is {str(alpha)[:50]}.")
    return rank, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _by_pattern(patterns: Any, name: str, default: Any, source: str) -> Any:
    """The value of the first pattern that fits the end of a name, as PEFT has it."""
    if not isinstance(patterns, dict):
        raise Failure(f"The adapter in {source} is damaged.", "A pattern is no object.")
    for pattern, value in patterns.items():
        # A file from elsewhere must not keep the server busy for ever: nothing repeated inside what is repeated.
        if len(pattern) > 300 or re.search(r"\)[*+?{]", pattern) or len(re.findall(r"[*+?{]", pattern)) > 3:
            raise UsageError(f"The adapter in {source} has the pattern {pattern[:100]!r}.", "It is too intricate.")
        try:
            if re.match(rf"(?:.*\.)?(?:{pattern})$", name):
                return value
        except re.error as error:
            raise Failure(
                f"The adapter in {source} is damaged.", f"{pattern[:100]!r} is no pattern: {error}."
            ) from error
    return default


def _check_pair(name: str, a: Tensor, b: Tensor, rank: int, shape: tuple[int, int], source: str) -> None:
    wanted = {"A": (rank, shape[1]), "B": (shape[0], rank)}
    wrong = [
        f"{name}.lora_{side} is {list(one.shape)}, not {list(wanted[side])}."
        for side, one in (("A", a), ("B", b))
        if tuple(one.shape) != wanted[side] or not one.is_floating_point()
    ]
    if wrong:
        raise UsageError(
            f"The adapter in {source} does not fit this model.", "\n".join(wrong),
            "Use it with the model that it was trained on.",
        )  # fmt: skip


# ---- where it goes ---------------------------------------------------------------------------------------------------


def _own_sites(model: Transformer) -> dict[str, _Site]:
    """Every matrix by the name of our layer."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, StoredLinear):
            found[name] = _Site(name, module.stored.shape)
        elif isinstance(module, nn.Linear):
            found[name] = _Site(name, (module.out_features, module.in_features))
    return found


def _stock_sites(model: Transformer, own: Mapping[str, _Site]) -> dict[str, _Site]:
    """Every matrix by the name of the layer in `transformers`; {} where there is no stock class."""
    stock = stock_of(model.config)
    if stock is None:
        return {}
    found: dict[str, _Site] = {}
    for slot in slots(model.config, stock.name):
        layer, _, kind = slot.ours.rpartition(".")
        if kind != "weight" or layer not in own:
            continue
        for part, (name, whole) in enumerate(zip(slot.theirs, _parts(slot, own[layer].shape), strict=True)):
            turned = stock.name == "gpt2" and layer != "head"
            size = (whole[1], whole[0]) if turned else whole
            found[name.removesuffix(".weight")] = _Site(layer, size, slot, part, turned)
    return found


def _parts(slot: Slot, shape: tuple[int, int]) -> list[tuple[int, int]]:
    return [(part.shape[0], part.shape[1]) for part in slot.split(torch.empty(shape, device="meta"))]


def _named_sites(
    model: Transformer, found: Mapping[str, Any], settings: Mapping[str, Any], source: str
) -> dict[str, _Site]:
    """Where each of the adapter's layers is.

    Raises:
        UsageError: the model lacks some of them, or the adapter some that it says it has.
    """
    own = _own_sites(model)
    stock = _stock_sites(model, own)
    # A model that was wrapped without its output matrix, or (ours) inside a class with one: names begin otherwise.
    prefixes = ("model.", *PREFIXES.values())
    bare = {name.removeprefix(prefix): site for prefix in prefixes for name, site in stock.items()}
    styles = [{**bare, **stock}, {**{f"model.{name}": site for name, site in own.items()}, **own}]
    sites = max(styles, key=lambda style: sum(name in style for name in found))
    foreign = [name for name in found if name not in sites]
    if foreign:
        tied = model.config.tied_head and any(name.endswith(("lm_head", "head")) for name in foreign)
        raise UsageError(
            f"The adapter in {source} does not fit this model.",
            f"The model has no layer {', '.join(foreign[:NAMED])}{' …' if len(foreign) > NAMED else ''}"
            + (" (its output matrix is its embedding, which an adapter cannot change alone)." if tied else "."),
            "Use it with the model that it was trained on.",
        )
    targets = settings.get("target_modules")
    partly = settings.get("layers_to_transform") is not None or settings.get("exclude_modules")
    if isinstance(targets, list) and not partly:
        reached = {(sites[name].ours, sites[name].part) for name in found}
        missing = {
            site.ours if site.slot is None else site.slot.theirs[site.part].removesuffix(".weight"): None
            for name, site in sites.items()
            if any(name == one or name.endswith(f".{one}") for one in targets if one)
            and (site.ours, site.part) not in reached
        }
        if missing:
            raise UsageError(
                f"The adapter in {source} is not whole, or belongs to a smaller model.",
                f"Its target_modules name these layers too: {', '.join(list(missing)[:NAMED])}"
                f"{' …' if len(missing) > NAMED else ''}.",
                "Fetch the files again, or use it with the model that it was trained on.",
            )
    return {name: sites[name] for name in found}


def _merged(model: Transformer, named: Mapping[str, _Site], deltas: Mapping[str, Tensor], rank: int) -> Adapted:
    """The model with the differences added, in layers of its own; everything else is shared."""
    kept: dict[int, Any] = {id(one): one for one in (*model.parameters(), *model.buffers())}
    kept |= {id(one): one for module in model.modules() for one in vars(module).values() if isinstance(one, Stored)}
    kept[id(model.config)] = model.config
    adapted = copy.deepcopy(model, kept)  # new layers around the very same tensors
    by_layer: dict[str, list[str]] = {}
    for name, site in named.items():
        by_layer.setdefault(site.ours, []).append(name)
    used = 0
    for layer, names in by_layer.items():
        old = adapted.get_submodule(layer)
        weight: Any = old.weight.detach()
        weight = weight.float() + _whole(tuple(weight.shape), names, named, deltas).to(weight.device)
        fresh = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        fresh.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        fresh.bias = old.bias  # type: ignore[assignment]
        parent, _, leaf = layer.rpartition(".")
        setattr(adapted.get_submodule(parent), leaf, fresh)
        used += weight.numel() * weight.element_size()
    return Adapted(adapted.eval(), rank, len(by_layer), used)


def _whole(
    shape: tuple[int, ...], names: list[str], named: Mapping[str, _Site], deltas: Mapping[str, Tensor]
) -> Tensor:
    """What is added to one matrix of ours [out, in].

    A matrix of ours is linear in those of the stock model that it is made of, so what is added to them is brought into
    our layout as they are; nothing is added to the parts that the adapter does not name.
    """
    slot = named[names[0]].slot
    if slot is None:
        return torch.stack([deltas[name] for name in names]).sum(0)
    parts = [torch.zeros(size) for size in _parts(slot, (shape[0], shape[1]))]
    for name in names:
        parts[named[name].part] += deltas[name].T if named[name].turned else deltas[name]
    return slot.join(parts)
