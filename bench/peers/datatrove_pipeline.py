"""datatrove's FineWeb recipe from JSONL to token shards. Runs in datatrove's environment; writes below --work.

    PYTHON bench/peers/datatrove_pipeline.py --input SLICE.jsonl --tokenizer tokenizer.json --work DIR

Steps, each with the defaults of the library and of its own examples/fineweb.py, one task, one worker: JsonlReader,
GopherRepetitionFilter, GopherQualityFilter, C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter,
JsonlWriter (uncompressed); MinHash deduplication in four stages (5-grams, 14 buckets of 8 hashes, SHA-1 of 64 bits);
DocumentTokenizer (no shuffling). --dedup kept (the default, what a user does) deduplicates and tokenizes what the
filters kept; --dedup all deduplicates and tokenizes every document. URL filter, trafilatura, language identification
and PII of that recipe are left out: the input is text already. Prints one line of JSON with the CPU seconds (of this
process; the caller measures the tree) and the documents of each stage.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any


def stages(asked: argparse.Namespace) -> list[tuple[str, list[Any]]]:
    """(name, pipeline) of each executor, in order."""
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import JsonlWriter

    work = asked.work
    config = MinhashConfig()

    def raw() -> Any:
        return JsonlReader(str(asked.input.parent), glob_pattern=asked.input.name)

    def chosen() -> Any:
        return raw() if asked.dedup == "all" else JsonlReader(str(work / "filtered"))

    return [
        (
            "filter",
            [
                raw(),
                GopherRepetitionFilter(),
                GopherQualityFilter(),
                C4QualityFilter(filter_no_terminal_punct=False),
                FineWebQualityFilter(),
                JsonlWriter(str(work / "filtered"), compression=None),
            ],
        ),
        ("signature", [chosen(), MinhashDedupSignature(str(work / "signatures"), config=config)]),
        ("buckets", [MinhashDedupBuckets(str(work / "signatures"), str(work / "buckets"), config=config)]),
        ("cluster", [MinhashDedupCluster(str(work / "buckets"), str(work / "removed"), config=config)]),
        (
            "dedup filter",
            [chosen(), MinhashDedupFilter(str(work / "removed")),
             JsonlWriter(str(work / "deduplicated"), compression=None)],
        ),
        (
            "tokenize",
            [
                JsonlReader(str(work / "deduplicated")),
                DocumentTokenizer(
                    str(work / "tokens"), str(asked.tokenizer), eos_token=asked.end, shuffle_documents=False
                ),
            ],
        ),
    ]  # fmt: skip


def total(stats: list[dict[str, Any]], step: int, name: str) -> int:
    """A counter of one step (a number, or a mapping with its total)."""
    value = stats[step]["stats"].get(name, 0)
    return int(value["total"] if isinstance(value, dict) else value)


def main() -> None:
    """Run the recipe and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder that is removed and made anew")
    parser.add_argument("--dedup", choices=("kept", "all"), default="kept")
    parser.add_argument("--end", default="<|end|>", help="special token after each document")
    asked = parser.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    began = time.process_time()
    from datatrove.executor import LocalPipelineExecutor
    from loguru import logger

    logger.remove()
    steps = stages(asked)
    seconds = {"import": time.process_time() - began}
    wall = {}
    reports: dict[str, list[dict[str, Any]]] = {}
    for name, pipeline in steps:
        began, clock = time.process_time(), time.perf_counter()
        # One bucket is one task there, so its stages are told how many there are; all run in this process.
        tasks = 14 if name == "buckets" else 1
        log = asked.work / "logs" / name
        stats = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(log)).run()
        seconds[name] = time.process_time() - began
        wall[name] = time.perf_counter() - clock
        reports[name] = [step.to_dict() for step in stats.stats]
    kept = {
        "read": total(reports["filter"], 0, "documents"),
        **{step["name"].partition(": ")[2].partition(" ")[2]: total(reports["filter"], number, "forwarded")
           for number, step in enumerate(reports["filter"][:5]) if number},
        "deduplicated": total(reports["dedup filter"], 1, "forwarded"),
        "tokens": total(reports["tokenize"], 1, "tokens"),
    }  # fmt: skip
    print(json.dumps({"cpu": seconds, "wall": wall, "kept": kept, "steps": reports}))


if __name__ == "__main__":
    main()
