"""`python -m bench`: bits per byte against wall clock, Textmill beside a GPT-2 trained the usual way."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

from bench.pretraining import compare


def main() -> None:
    """Run the comparison and print its table; the raw figures go to --out."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--corpus", default="sample:sotu", help="texts, as for textmill build")
    parser.add_argument("--minutes", type=float, default=1.5, help="training time of each contestant, each repeat")
    parser.add_argument("--repeats", type=int, default=2, help="times that each contestant trains, in turn")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads, all cores by default")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for the raw figures")
    asked = parser.parse_args()
    result = compare(asked.corpus, 60 * asked.minutes, asked.repeats, asked.threads, asked.out)
    result["versions"] = {name: version(name) for name in ("textmill", "torch", "transformers", "tokenizers")}
    result["machine"] = platform.platform()
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "pretraining.json").write_text(json.dumps(result, indent=2))
    print(result["table"])
    print(", ".join(f"{name} {number}" for name, number in result["versions"].items()))


if __name__ == "__main__":
    main()
