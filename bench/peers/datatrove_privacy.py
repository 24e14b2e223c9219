"""datatrove's PIIFormatter on the texts of a JSONL file. Runs in datatrove's environment; touches nothing.

    PYTHON bench/peers/datatrove_privacy.py --input FILE.jsonl

Mail addresses and public IP addresses, the library's defaults, but with our placeholders, so that what is replaced can
be counted and compared. Prints one line of JSON: CPU seconds, bytes, and per document what was replaced.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    from importlib.metadata import version

    from datatrove.pipeline.formatters import PIIFormatter

    formatter = PIIFormatter(email_replacement="\ue000", ip_replacement="\ue001")
    with asked.input.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"].replace("\ue000", "").replace("\ue001", "") for line in lines]
    seconds = []
    for _ in range(asked.repeats):
        began = time.process_time()
        replaced = [formatter.format(text) for text in texts]
        seconds.append(time.process_time() - began)
    print(
        json.dumps(
            {
                "version": version("datatrove"),
                "cpu": seconds,
                "bytes": sum(len(text.encode()) for text in texts),
                "email": [text.count("\ue000") for text in replaced],
                "ip": [text.count("\ue001") for text in replaced],
            }
        )
    )


if __name__ == "__main__":
    main()
