"""data-juicer's MinHash deduplication of a JSONL file. Runs in data-juicer's environment; writes to --work.

    PYTHON bench/peers/datajuicer_minhash.py --input SLICE.jsonl --work DIR

The operator document_minhash_deduplicator with its defaults (256 permutations, Jaccard threshold 0.7, shingles of
five words split at spaces), called as `dj-process` calls it but without its executor, which loads ray and PyTorch for
it: hash every document, cluster, write what is left as JSONL. One process. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path


def main() -> None:
    """Run the operator and print what it kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder that is removed and made anew")
    asked = parser.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    asked.work.mkdir(parents=True)
    sys.argv = sys.argv[:1]  # the library reads it
    began = time.process_time()
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator

    seconds = {"import": time.process_time() - began}
    with asked.input.open() as lines:
        dataset = NestedDataset.from_list([json.loads(line) for line in lines])
    began = time.process_time()
    operator = DocumentMinhashDeduplicator(tokenization="space", window_size=5, jaccard_threshold=0.7)
    dataset = dataset.map(operator.compute_hash)
    seconds["signature"] = time.process_time() - began
    began = time.process_time()
    kept, _ = operator.process(dataset)
    seconds["cluster"] = time.process_time() - began
    kept.remove_columns([name for name in kept.column_names if name.startswith("__dj__")]).to_json(
        str(asked.work / "kept.jsonl")
    )
    print(json.dumps({"cpu": seconds, "kept": {"read": len(dataset), "deduplicated": len(kept)}}))


if __name__ == "__main__":
    main()
