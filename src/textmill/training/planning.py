"""Plans of a run: gathers the facts from its stages, probes the machine once, keeps `plan.json`."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from textmill.base.files import hash_json, read_json, write_json
from textmill.base.progress import Progress
from textmill.base.run import Run
from textmill.base.settings import from_mapping
from textmill.models.config import Switches
from textmill.training.config import PlanConfig, TrainingConfig
from textmill.training.family_settings import check_settings
from textmill.training.plan import Facts, Plan, make_plan
from textmill.training.probe import Probe, probe_machine

PLAN_FILE = "plan.json"
TEXTURE_BYTES = 1_000_000


def texture(run: Run) -> float:
    """Bits per byte of `zstd -19` on up to 1 MB of the training split: how compressible this kind of text is."""
    import pyarrow.parquet as pq
    import zstandard

    pieces: list[bytes] = []
    size = 0
    for path in sorted((run / "corpus").glob("documents-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=256, columns=["text", "split"]):
            for text, split in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                if split == "train":
                    pieces.append(text.encode()[: TEXTURE_BYTES // 20])  # from twenty documents at least
                    size += len(pieces[-1])
            if size >= TEXTURE_BYTES:
                break
        if size >= TEXTURE_BYTES:
            break
    data = b"".join(pieces)[:TEXTURE_BYTES]
    return 8 * len(zstandard.ZstdCompressor(level=19).compress(data)) / max(1, len(data))


def gather_facts(run: Run, known_texture: float | None = None) -> Facts:
    """What the finished stages of the run tell about the text."""
    splits = read_json(run / "corpus" / "card.json")["splits"]
    held = splits["validation"]["bytes"] + splits["test"]["bytes"]
    facts: dict[str, Any] = {
        "train_bytes": splits["train"]["bytes"],
        "held_bytes": held,
        "texture": known_texture if known_texture is not None else texture(run),
    }
    index = run / "tokens" / "index.json"
    if index.exists():
        record = read_json(index)
        tokens = record["splits"]["train"]["tokens"]
        facts |= {
            "vocabulary": record["vocabulary"],
            "train_tokens": tokens,
            "bytes_per_token": splits["train"]["bytes"] / max(1, tokens),
        }
    return Facts(**facts)


def plan_run(
    run: Run,
    budget: float | None,
    config: PlanConfig,
    training: TrainingConfig,
    progress: Progress,
    *,
    elapsed: float = 0.0,
    evaluate: bool = True,
    tokenized: bool = True,
    known_probe: Probe | None = None,
) -> Plan:
    """The plan of this run for this budget; the one in `plan.json` when it was made for the same.

    Args:
        run: with a finished corpus stage, and a tokens stage when `tokenized`.
        budget: seconds for the whole build, or None when `config.steps` sets the length.
        config, training: the settings.
        progress: where to report.
        elapsed: seconds of the budget already spent.
        evaluate: whether evaluation and report come out of the budget.
        tokenized: False before the tokenizer exists: vocabulary and token counts are then estimates.
        known_probe: of this machine, measured moments ago; None measures it where that was not done for this run.
    """
    asked = [run.fingerprint("corpus"), budget, asdict(config), asdict(training), evaluate]
    key = hash_json([*asked, run.fingerprint("tokens")] if tokenized else asked)
    path = run / PLAN_FILE
    before: dict[str, Any] = read_json(path) if path.exists() else {}
    if before.get("key") == key or (not tokenized and before.get("first_key") == key):
        names = ("chosen", "reasons", "warnings", "measured", "predicted", "actual", "budget_seconds")
        return Plan(**{name: before[name] for name in names})
    check_settings(config.family, config.set)
    same_machine = before.get("first_key") == hash_json(asked)
    if same_machine:  # the probe of a few seconds ago
        probe, known = Probe.from_json(before["measured"]), before["measured"]["texture"]
    elif known_probe is not None:
        probe, known = known_probe, None
    else:
        with progress.task("Probing this machine"):
            probe, known = probe_machine(training.threads), None
    facts = gather_facts(run, known)
    if not tokenized:
        facts = Facts(facts.train_bytes, facts.held_bytes, facts.texture)
    if config.family == "transformer" or not tokenized:
        # Before there are tokens, any family needs no more of the plan than its vocabulary.
        general = config if config.family == "transformer" else _general(config)
        plan = make_plan(facts, probe, budget, general, training, elapsed=elapsed, evaluate=evaluate)
    else:
        from textmill.tokens.tokenizer import Tokenizer
        from textmill.training.family_plan import plan_family

        tokenizer = Tokenizer.load(run / "tokens")
        with progress.task(f"Trying sizes of the family {config.family}"):
            plan = plan_family(
                facts, probe, budget, config, training, special=special_ids(tokenizer), elapsed=elapsed,
                evaluate=evaluate,
            )  # fmt: skip
    write_plan(run, plan, key=key, first_key=hash_json(asked), settings=asdict(config))
    return plan


def _general(config: PlanConfig) -> PlanConfig:
    """What holds for a family other than the Transformer before there are tokens: the vocabulary, the length."""
    return PlanConfig(vocabulary=config.vocabulary, steps=config.steps, allow_small=config.allow_small)


def special_ids(tokenizer: Any) -> dict[str, int]:
    """The tokenizer's special tokens by name, the document end as `<|end|>` whatever its own name."""
    return {**tokenizer.special, "<|end|>": tokenizer.document_end}


def write_plan(run: Run, plan: Plan, **more: Any) -> None:
    """Write `plan.json`; its keys and settings of before are kept unless given anew."""
    path = run / PLAN_FILE
    before: dict[str, Any] = read_json(path) if path.exists() else {}
    kept = {name: before[name] for name in ("key", "first_key", "settings") if name in before}
    write_json(path, {**kept, **more, **asdict(plan)})


def read_request(run: Run) -> tuple[float, PlanConfig] | None:
    """Budget and settings for which the plan in `plan.json` was made; None without a plan for a budget."""
    path = run / PLAN_FILE
    if not path.exists():
        return None
    record = read_json(path)
    if record.get("budget_seconds") is None or "settings" not in record:
        return None
    settings = dict(record["settings"])
    settings["model"] = from_mapping(Switches, settings["model"])
    return float(record["budget_seconds"]), from_mapping(PlanConfig, settings)


def merge(before: PlanConfig, typed: PlanConfig) -> PlanConfig:
    """The settings of before, with those typed now instead where they differ from the defaults."""
    default = PlanConfig()
    names = [field.name for field in fields(PlanConfig)]
    changed = {name: getattr(typed, name) for name in names if getattr(typed, name) != getattr(default, name)}
    return replace(before, **changed)
