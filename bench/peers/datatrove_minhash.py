"""datatrove's MinHash on a JSONL file: signatures, pairs, and what its four stages remove. Runs in its environment.

    PYTHON bench/peers/datatrove_minhash.py --input FILE.jsonl --work DIR [--hash sha1|xxhash] [--only-signatures]

5-grams, 14 buckets of 8 hashes of 64 bits, the library's defaults. Prints one line of JSON: CPU seconds of shingles and
signatures, and unless --only-signatures: pairs of lines that agree in a bucket (of its own signatures), and the lines
that its own stages 2 to 4 remove.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from collections import defaultdict
from pathlib import Path
from typing import Any


def removed(documents: list[Any], config: Any, work: Path) -> list[int]:
    """Lines that the four stages, run one after the other, drop."""
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )

    signatures, buckets, remove = (str(work / name) for name in ("signatures", "buckets", "remove"))
    MinhashDedupSignature(signatures, config).run(iter(documents), 0, 1)
    for bucket in range(config.num_buckets):
        MinhashDedupBuckets(signatures, buckets, config=config).run(None, bucket, config.num_buckets)
    MinhashDedupCluster(buckets, remove, config=config).run(None, 0, 1)
    kept = {int(document.id) for document in MinhashDedupFilter(remove).run(iter(documents), 0, 1)}
    return [number for number in range(len(documents)) if number not in kept]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder that is removed and made anew")
    parser.add_argument("--hash", choices=("sha1", "xxhash"), default="xxhash")
    parser.add_argument("--only-signatures", action="store_true")
    asked = parser.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    asked.work.mkdir(parents=True)
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(hash_config=HashConfig(precision=64, hash_fc=asked.hash))
    with asked.input.open() as lines:
        texts = [json.loads(line)["text"] for line in lines]
    stage = MinhashDedupSignature(str(asked.work / "unused"), config)
    stage.get_shingles("its tokenizer loads on the first text, outside of the clock")
    began = time.process_time()
    found = []
    for text in texts:
        shingles = stage.get_shingles(text)
        found.append(stage.get_signature(shingles) if shingles.size else [])
    result: dict[str, Any] = {"cpu": time.process_time() - began, "bytes": sum(len(text.encode()) for text in texts)}
    if not asked.only_signatures:
        buckets: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, signature in enumerate(found):
            for bucket, values in enumerate(signature):
                buckets[bucket, *values].append(number)
        result["pairs"] = sorted({pair for one in buckets.values() for pair in itertools.combinations(one, 2)})
        documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
        result["removed"] = removed(documents, config, asked.work)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
