"""N-grams beside their peers: training beside lmplz, scoring beside kenlm, both beside NLTK. Starts processes.

`python -m bench.ngram --peers-python PYTHON [--lmplz PROGRAM]`; PYTHON is that of an environment with `kenlm nltk`
(0.3.0 and 3.10.4 when this was written), and PROGRAM is KenLM's lmplz, which no package carries: build it from source.
The text is the bench corpus' (`make bench-corpus` fetches it), split at blanks, one paragraph a line.

- Training: 50 MB, order 5, nothing pruned, an ARPA file written. Whole processes from start to exit, imports included,
  in turn; a warm-up before lets numba fill its cache, which a user pays once. Speed is text over CPU time (a core),
  since lmplz uses several threads. lmplz gets 1 GB and its vocabulary's true size, or it clears more than it uses.
- Scoring: the next 10 MB with that model, loading aside, best of three, one thread each. kenlm's `score` takes a
  sentence at a time, its whole interface; ours takes the text, or its lines as a list of strings.
- NLTK: a slice of 0.5 MB, order 3; it scores a few dozen words a second.

MB are 10^6 bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import TEXTMILL, Spread, Usage, interleaved, machine, run, slice_lines, table, version_in

PEERS = Path(__file__).parent / "peers"
ONE_THREAD = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NLTK_BYTES, NLTK_WORDS, NLTK_ORDER = 500_000, 100, 3
SPECIAL = {"<s>", "</s>", "<unk>"}


def write_text(documents: Path, train: Path, test: Path, train_bytes: int, test_bytes: int) -> None:
    """The words of the documents, a paragraph a line: first those to train on, then those to score."""
    sizes = [train_bytes, test_bytes]
    written = 0
    with documents.open("rb") as lines, train.open("w", encoding="utf-8") as first, test.open("w") as second:
        files = [first, second]
        for line in lines:
            for paragraph in json.loads(line)["text"].split("\n"):
                words = " ".join(word for word in paragraph.split() if word not in SPECIAL)
                if words:
                    files[0].write(f"{words}\n")
                    written += len(words.encode()) + 1
            if written >= sizes[0]:
                del sizes[0], files[0]
                written = 0
            if not sizes:
                return


def score_ours(model: Path, test: Path) -> dict[str, Any]:
    """Seconds of processor that scoring the text takes, the best of three."""
    code = (
        "import sys, time, json\nfrom pathlib import Path\nfrom textmill.models.ngram.query import open_model\n"
        "began = time.perf_counter(); model = open_model(sys.argv[1]); opened = time.perf_counter() - began\n"
        "data = Path(sys.argv[2]).read_bytes(); lines = data.decode().split('\\n')[:-1]\n"
        "model.score(lines[:1000])\n"
        "def best(work):\n"
        "    least, found = 1e9, None\n"
        "    for _ in range(3):\n"
        "        began = time.process_time(); found = work(); least = min(least, time.process_time() - began)\n"
        "    return least, float(found.sum(dtype='f8'))\n"
        "whole, total = best(lambda: model.score_block(data, threads=1).log10)\n"
        "listed, again = best(lambda: model.score(lines))\n"
        "began = time.perf_counter(); model.score_block(data); wall = time.perf_counter() - began\n"
        "assert total == again\n"
        "print(json.dumps({'seconds': whole, 'lines': listed, 'log10': total, 'opened': opened, 'wall': wall}))"
    )
    usage = run((sys.executable, "-c", code, str(model), str(test)), env=ONE_THREAD).checked()
    return dict(json.loads(usage.output))


def bench_training(
    train: Path, folder: Path, lmplz: Path | None, repeats: int
) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of the table, and the raw figures."""
    size = train.stat().st_size / 1e6
    ours, theirs = folder / "ours.arpa", folder / "lmplz.arpa"
    contestants: dict[str, Callable[[int], Usage]] = {
        "textmill ngram": lambda _: run(
            (*TEXTMILL, "ngram", str(train), "--order", "5", "--arpa", str(ours), "--quiet"), env=ONE_THREAD
        )
    }
    if lmplz is not None:
        types = 1000 + int(subprocess.check_output(f"tr -s ' ' '\\n' < {train} | sort -u | wc -l", shell=True))
        words = f"{lmplz} -o 5 -S 1G --vocab_estimate {types} -T {folder}/ < {train} > {theirs}"
        contestants["lmplz"] = lambda _: run(("bash", "-c", words))
    runs = interleaved(contestants, repeats)
    rows = []
    for name, usages in runs.items():
        speed = Spread.of([size / usage.cpu for usage in usages])
        wall = Spread.of([usage.wall for usage in usages])
        rows.append([name, speed.show(), wall.show(".1f"), f"{max(usage.peak_rss for usage in usages) / 1e6:.0f} MB"])
    same = lmplz is not None and ours.read_bytes() == theirs.read_bytes()
    raw = {name: [vars(usage) for usage in usages] for name, usages in runs.items()}
    return rows, {"megabytes": size, "runs": raw, "same file": same}


def bench_scoring(test: Path, folder: Path, python: Path) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of the table, and the raw figures."""
    size = test.stat().st_size / 1e6
    arpa, compact = folder / "ours.arpa", folder / "ours.ngrams"
    code = "import sys; from pathlib import Path; from textmill.models.ngram.query import open_model\n" \
           "open_model(sys.argv[1]).save(Path(sys.argv[2]))"  # fmt: skip
    run((sys.executable, "-c", code, str(arpa), str(compact))).checked()
    found: dict[str, Any] = {"megabytes": size, "ours": score_ours(compact, test)}
    rows = [
        ["textmill, a whole text", f"{size / found['ours']['seconds']:.1f}"],
        ["textmill, a list of lines", f"{size / found['ours']['lines']:.1f}"],
    ]
    if any(version_in(python, name) != "absent" for name in ("kenlm", "kenlm-ex")):  # one module, two packages
        usage = run((str(python), str(PEERS / "kenlm_score.py"), str(arpa), str(test)), env=ONE_THREAD).checked()
        found["kenlm"] = json.loads(usage.output)
        rows.append(["kenlm, Model.score of each line", f"{size / found['kenlm']['seconds']:.1f}"])
        ours, theirs = found["ours"]["log10"], found["kenlm"]["log10"]
        assert abs(ours - theirs) < 1e-6 * abs(theirs), (ours, theirs)
    return rows, found


def bench_nltk(train: Path, test: Path, folder: Path, python: Path) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows of the table, and the raw figures."""
    part, model = folder / "nltk.txt", folder / "nltk.ngrams"
    size = slice_lines(train, part, NLTK_BYTES) / 1e6
    words = (str(python), str(PEERS / "nltk_ngrams.py"), str(part), str(test), str(NLTK_ORDER), str(NLTK_WORDS))
    theirs = json.loads(run(words, env=ONE_THREAD).checked().output)
    began = time.monotonic()
    command = (*TEXTMILL, "ngram", str(part), "--order", str(NLTK_ORDER), "--binary", str(model), "--json")
    ours = json.loads(run(command, env=ONE_THREAD).checked().output)
    scored = score_ours(model, test)
    tokens = len(test.read_bytes().split())
    found = {"theirs": theirs, "ours": ours, "scored": scored, "wall": time.monotonic() - began, "megabytes": size}
    rows = [
        ["textmill", f"{ours['seconds']:.2f} s", f"{tokens / scored['seconds']:,.0f}"],
        ["NLTK KneserNeyInterpolated", f"{theirs['fit']:.2f} s", f"{theirs['words'] / theirs['score']:,.0f}"],
    ]
    return rows, found


def main() -> None:
    """Run the comparison and print its tables; the raw figures go to --out."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.ngram", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument(
        "--documents", type=Path, default=Path("runs/bench-corpus/en.jsonl"), help="JSON lines with text"
    )
    parser.add_argument("--peers-python", type=Path, default=Path(sys.executable), help="has kenlm and nltk")
    parser.add_argument("--lmplz", type=Path, default=None, help="KenLM's lmplz, built from source")
    parser.add_argument("--megabytes", type=float, default=50, help="text to train on")
    parser.add_argument("--repeats", type=int, default=3, help="times that each trains, in turn")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/textmill-bench-ngram"), help="for texts and models")
    parser.add_argument("--parts", default="training,scoring,nltk", help="which of the three to run")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for the raw figures")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    train, test = asked.folder / "train.txt", asked.folder / "test.txt"
    write_text(asked.documents, train, test, int(asked.megabytes * 1e6), 10_000_000)
    result: dict[str, Any] = {"machine": machine()}
    result["versions"] = {name: version_in(asked.peers_python, name) for name in ("kenlm", "nltk")}
    parts = asked.parts.split(",")
    warm = asked.folder / "warm.txt"
    slice_lines(train, warm, 300_000)
    run((*TEXTMILL, "ngram", str(warm), "--order", "5", "--arpa", str(asked.folder / "warm.arpa"), "--quiet")).checked()
    if "training" in parts:
        rows, result["training"] = bench_training(train, asked.folder, asked.lmplz, asked.repeats)
        print(table(("training, order 5", "MB/s a core", "seconds", "peak memory"), rows), end="\n\n")
        if asked.lmplz is not None:
            print(f"The two ARPA files are the same to the byte: {result['training']['same file']}", end="\n\n")
    if "scoring" in parts:
        rows, result["scoring"] = bench_scoring(test, asked.folder, asked.peers_python)
        print(table(("scoring, order 5", "MB/s a core"), rows), end="\n\n")
    if "nltk" in parts and result["versions"]["nltk"] != "absent":
        rows, result["nltk"] = bench_nltk(train, test, asked.folder, asked.peers_python)
        print(table(("0.5 MB, order 3", "training", "words scored a second"), rows), end="\n\n")
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "ngram.json").write_text(json.dumps(result, indent=2, default=str))


if __name__ == "__main__":
    main()
