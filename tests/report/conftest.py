"""A fixture run, written by the schemas of docs/DESIGN.md. Its figures are made up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cards import HOSTILE, card, whole_card

from textmill.base.files import write_json
from textmill.base.run import Run


def index() -> dict[str, Any]:
    def split(tokens: int, documents: int, size: int) -> dict[str, Any]:
        return {"shards": [], "tokens": tokens, "documents": documents, "bytes": size}

    return {
        "vocabulary": 4096,
        "dtype": "uint16",
        "special": {"<|end|>": 0},
        "document_end": 0,
        "splits": {
            "train": split(2_890_413, 190, 10_702_300),
            "validation": split(159_002, 21, 588_907),
            "test": split(173_500, 35, 643_000),
        },
    }


def plan() -> dict[str, Any]:
    return {
        "chosen": {
            "vocabulary": 4096,
            "width": 320,
            "layers": 6,
            "heads": 5,
            "context": 256,
            "batch_tokens": 8192,
            "micro_batch": 32,
            "steps": 1180,
            "epochs": 3.34,
            "parameters": 10_014_720,
        },
        "reasons": {
            "vocabulary": "4,096 tokens: a larger vocabulary would see each token too seldom in 10.7 MB.",
            "layers": "Of the shapes that this budget trains to the end, 6 × 320 is predicted to be best.",
            "context": "256 tokens hold about a paragraph; longer windows would cost a tenth of the steps.",
            "epochs": "The budget reads the corpus 3.3 times, which is below the four that still teach well.",
        },
        "warnings": ["The corpus is the limit, not the time: twice the text would help more than twice the budget."],
        "measured": {"cores": 2, "flops_per_second": 243e9, "tokens_per_second": 33_500.0, "compiled": True},
        "predicted": {
            "seconds": {"corpus": 4.0, "tokens": 9.0, "probe": 12.0, "training": 290.0, "evaluation": 20.0},
            "total_seconds": 335.0,
            "memory_bytes": 1_410_000_000,
            "bits_per_byte": 1.46,
        },
        "actual": {
            "seconds": {"corpus": 3.6, "tokens": 10.2, "probe": 11.4, "training": 288.1, "evaluation": 24.0},
            "total_seconds": 337.3,
            "memory_bytes": 1_523_000_000,
            "bits_per_byte": 1.4213,
        },
        "budget_seconds": 360.0,
    }


def rows(own: float = 1.4213, half: float = 0.031, scale: float = 1.0) -> list[dict[str, Any]]:
    def row(name: str, label: str, kind: str, value: float, **more: Any) -> dict[str, Any]:
        return {"name": name, "label": label, "kind": kind, "bits_per_byte": value, **more}

    return [
        row(
            "textmill",
            "Textmill, 10.0 M",
            "model",
            own,
            low=own - half,
            high=own + half,
            token_perplexity=38.71,
            parameters=10_014_720,
            seconds=9.21,
            note="best checkpoint",
            signature="textmill:0.1.0|task:bpb|split:test|context:256|stride:128|bootstrap:1000|seed:0",
        ),
        row(
            "kneser-ney",
            "Kneser-Ney 5-gram",
            "baseline",
            1.7102 * scale,
            low=1.671 * scale,
            high=1.752 * scale,
            token_perplexity=81.2,
            parameters=6_710_221,
            seconds=7.4,
            note="interpolated, over the same tokens",
            signature="textmill:0.1.0|task:bpb|split:test|ngram:5|discounts:modified|bootstrap:1000|seed:0",
        ),
        row(
            "unigram",
            "Unigram",
            "baseline",
            2.7714,
            low=2.741,
            high=2.803,
            token_perplexity=1190.4,
            parameters=4096,
            seconds=0.12,
            note="",
            signature="textmill:0.1.0|task:bpb|split:test|ngram:1",
        ),
        row(
            "xz",
            "xz -9e",
            "compressor",
            2.2981,
            seconds=0.41,
            note="the test text alone",
            signature="textmill:0.1.0|task:bpb|split:test|xz:5.4.1|preset:9e",
        ),
        row(
            "zstd",
            "zstd -19",
            "compressor",
            2.3907,
            seconds=0.33,
            note="the test text alone",
            signature="textmill:0.1.0|task:bpb|split:test|zstd:1.5.6|level:19",
        ),
    ]


def measurement(name: str = "test", **change: Any) -> dict[str, Any]:
    facts = {
        "description": f"the {name} split",
        "documents": 35,
        "bytes": 643_000,
        "tokens": 173_500,
        "hash": "9f3c51aa",
    }
    return {"name": name, "data": facts, "rows": rows(), **change}


def journal(steps: int = 1180) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for step in range(0, steps + 1, 4):
        seconds = 288.0 * step / steps
        fall = 1.30 + 6.5 * math.exp(-step / 28) + 0.92 * math.exp(-step / 330)
        wiggle = 0.035 * math.sin(step * 1.7) + 0.02 * math.sin(step * 0.53)
        records.append(
            {
                "kind": "step",
                "step": step,
                "seconds": seconds,
                "tokens": step * 8192,
                "loss": (fall + wiggle) * math.log(2) * 3.7,
                "learning_rate": 0.02,
                "gradient_norm": 0.9,
                "tokens_per_second": 33_100.0 + step % 400,
            }
        )
        if (step and step % 80 == 0) or step == steps:
            records.append(
                {
                    "kind": "validation",
                    "step": step,
                    "seconds": seconds,
                    "tokens": step * 8192,
                    "bits_per_byte": round(fall + 0.05, 4),
                }
            )
    records.append(
        {
            "kind": "event",
            "step": 0,
            "seconds": 0.9,
            "text": f"Out of memory: micro-batch 64 became 32. {HOSTILE}",
        }
    )
    records.append(
        {
            "kind": "event",
            "step": 512,
            "seconds": 125.0,
            "text": "Loss spike (3.1 to 5.8): the step was left out.",
        }
    )
    records.append({"kind": "event", "step": 640, "seconds": 156.2, "text": "Resumed from the checkpoint of step 640."})
    return records


SAMPLES = [
    (80, 19.5, "The people of", " the the of and States of to the Government the, of and which of the in."),
    (80, 19.5, "今年以来", "，的是国，在一中人，的有。"),
    (
        480,
        117.2,
        "The people of",
        " the United States have been in the most of the public and the great interest of the country.",
    ),
    (480, 117.2, "今年以来", "，我国经济的发展和人民的生活有了新的变化。"),
    (
        1180,
        288.0,
        "The people of",
        " this country have every reason to be grateful for the blessings of peace. The revenue of the last "
        "fiscal year exceeded the estimates, and the public debt has been reduced by more than eleven "
        "millions of dollars.\n\nI recommend to Congress that the surplus be applied to our harbors.",
    ),
    (
        1180,
        288.0,
        "今年以来",
        "，各地坚持稳中求进，工业生产平稳增长，城乡居民收入继续提高，市场供应充足，物价总体稳定。",
    ),
    (1180, 288.0, "Markup", f" {HOSTILE} & more"),
]


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")


def finish(run: Run, name: str, seconds: float) -> None:
    (run / name).mkdir(parents=True, exist_ok=True)
    write_json(
        run / name / "stage.json",
        {
            "stage": name,
            "fingerprint": f"{name}-0123456789abcdef",
            "counts": {},
            "seconds": seconds,
            "finished": 1.8e9,
        },
    )


def add_corpus(run: Run) -> None:
    finish(run, "corpus", 3.6)
    write_json(run / "corpus" / "card.json", card())


def add_model(run: Run) -> None:
    finish(run, "model", 288.1)
    write_lines(run / "model" / "training.jsonl", journal())
    write_lines(
        run / "model" / "samples.jsonl",
        [{"step": s, "seconds": t, "prompt": p, "text": x} for s, t, p, x in SAMPLES],
    )


@pytest.fixture
def empty(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "speeches")
    run.remember(
        created=1_795_000_000.0,
        command=["textmill", "build", "my texts/", "--out", "runs/speeches", "--budget", "6m"],
        versions={"textmill": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.2"},
        platform="Linux 6.1 x86_64",
        cpu="Example CPU, 2 cores",
    )
    return run


@pytest.fixture
def whole(empty: Run) -> Run:
    add_corpus(empty)
    finish(empty, "tokens", 10.2)
    write_json(empty / "tokens" / "index.json", index())
    write_json(empty / "plan.json", plan())
    add_model(empty)
    write_json(empty / "evaluation" / "test.json", measurement())
    write_json(empty / "evaluation" / "validation.json", measurement("validation", rows=rows(1.4302)))
    write_json(empty / "evaluation" / "other_texts.json", measurement("other_texts", rows=rows(1.93, 0.05)))
    return empty


@pytest.fixture
def add() -> dict[str, Callable[[Run], None]]:
    return {"corpus": add_corpus, "model": add_model}


@pytest.fixture
def milled(empty: Run) -> Run:
    """A run that has a corpus and nothing else."""
    finish(empty, "corpus", 3.6)
    stage = {**json.loads((empty / "corpus" / "stage.json").read_text()), "configuration": {"pii": "measure"}}
    stage["configuration"]["rules"] = ["datatrove-gopher"]
    write_json(empty / "corpus" / "stage.json", stage)
    write_json(empty / "corpus" / "card.json", whole_card())
    return empty
