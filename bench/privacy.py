"""`python -m bench.privacy FILE.jsonl`: personal data, speed and findings, beside datatrove's PIIFormatter.

FILE.jsonl holds documents with a "text" (`python -m bench.debian_docs` makes some). CPU seconds are those of finding
and replacing alone: reading the file is left out on both sides. Textmill looks for eleven kinds, datatrove for two; the
second row of Textmill looks for these two only. Repeats are interleaved. Writes --out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from textmill.corpus.privacy.config import KINDS, PrivacyConfig
from textmill.corpus.privacy.find import findings
from textmill.corpus.privacy.redact import redact
from textmill.corpus.texts import Texts

CONTESTANTS = {"textmill, eleven kinds": KINDS, "textmill, email and ip": ("email", "ip")}


def load(path: Path, megabytes: float) -> tuple[list[str], Texts]:
    """The first texts of a file, up to so many megabytes."""
    texts: list[str] = []
    size = 0.0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"].replace("\ue000", "").replace("\ue001", "")
            texts.append(text)
            size += len(text.encode())
            if size >= megabytes * 1e6:
                break
    return texts, Texts.from_strings(texts)


def peer(python: Path, sample: Path) -> dict[str, Any]:
    """One run of datatrove in its own environment."""
    command = [str(python), "bench/peers/datatrove_privacy.py", "--input", str(sample), "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run both on the same texts and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.privacy", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--megabytes", type=float, default=60, help="text that is read, from the file's begin")
    parser.add_argument("--datatrove", type=Path, help="Python of an environment with datatrove; left out without it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--show", type=int, default=0, help="findings of each kind that are printed, to be read")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    strings, texts = load(asked.file, asked.megabytes)
    size = len(texts.data) / 1e6
    sample = asked.out / "privacy-sample.jsonl"
    sample.write_text("".join(json.dumps({"text": text}) + "\n" for text in strings), encoding="utf-8")
    redact(texts.take(np.arange(min(50, len(texts)))))  # compiles, and imports numbering plans, outside of the clock
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    other: dict[str, Any] = {}
    for _ in range(asked.repeats):
        for name, kinds in CONTESTANTS.items():
            began = time.process_time()
            _, counts = redact(texts, PrivacyConfig(mode="replace", kinds=kinds))
            seconds[name].append(time.process_time() - began)
        if asked.datatrove:
            run = peer(asked.datatrove, sample)
            seconds.setdefault(f"datatrove {run['version']}, email and ip", []).extend(run["cpu"])
            other = run
    found: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    for row, here in findings(texts):
        for one in here:
            found[one.kind] += 1
            if len(shown.setdefault(one.kind, [])) < asked.show:
                raw = texts[row]
                around = raw[max(0, one.begin - 40) : one.begin].decode(errors="ignore").replace("\n", " / ")
                shown[one.kind].append(f"{around} [{one.text[:60]}]")
    print(f"{len(texts):,} documents, {size:.1f} MB; findings: {dict(found)}")
    for name, measured in seconds.items():
        middle = statistics.median(measured)
        print(f"{name:32s} {size / middle:8.1f} MB/s of CPU time   ({', '.join(f'{s:.2f}' for s in measured)} s)")
    agreement = {}
    for kind in ("email", "ip") if other else ():
        theirs, ours = np.array(other[kind]), counts[f"pii_{kind}"]
        agreement[kind] = {
            "datatrove": int(theirs.sum()),
            "textmill": int(ours.sum()),
            "both": int(np.minimum(theirs, ours).sum()),
        }
        totals = f"datatrove {theirs.sum():,}, textmill {ours.sum():,}"
        print(f"{kind}: {totals}, in the same documents {agreement[kind]['both']:,}")
    for kind, lines in shown.items() if asked.show else ():
        print(f"== {kind}", *lines, sep="\n   ")
    result = {"megabytes": size, "seconds": seconds, "findings": dict(found), "agreement": agreement}
    (asked.out / "privacy.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
