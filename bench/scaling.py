"""How `textmill corpus` scales: workers, memory, determinism, kills. Starts processes, writes below --out.

    python -m bench.scaling workers        one file, 1 and 2 workers, in turn: wall ratio
    python -m bench.scaling memory         peak resident memory at 25, 50, 100, 200 MB and 2 GB
    python -m bench.scaling determinism    one hash for 1 worker, 2 workers and --engine ray
    python -m bench.scaling kills          kill -9 at random moments, go on: bytes done again, same hash

Everything after `--` is passed on to `textmill corpus`, for example `-- --rules datatrove-fineweb`. All read
--documents (one .jsonl file from bench.debian_docs). The 2 GB are that file several times over, the words of every
copy but the first varied: one word in six, drawn with the document's id and the copy's number as seed, gets a suffix
that names the copy. Then two copies share about a third of their five-word shingles or fewer, and no document is a
repeat of its own copy; a corpus of exact copies would make deduplication too easy. The copies share vocabulary and
templates all the same, so this says how memory grows, not how varied a real 2 GB are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.measure import TEXTMILL, Spread, Usage, descendants, interleaved, machine, ratios, run, slice_lines, table

SIZES = (25_000_000, 50_000_000, 100_000_000, 200_000_000)
LARGE = 2_000_000_000
EVERY = 6
"""One word in this many is varied in a copy."""


def enlarge(source: Path, out: Path, size: int) -> int:
    """Write copies of `source`, each worded differently, until `out` has about `size` bytes; returns the bytes."""
    if out.exists() and abs(out.stat().st_size - size) < size / 20:
        return out.stat().st_size
    written = copy = 0
    with out.open("wb") as file:
        while written < size:
            with source.open("rb") as lines:
                for line in lines:
                    if copy:
                        line = _varied(line, copy)
                    file.write(line)
                    written += len(line)
                    if written >= size:
                        break
            copy += 1
    return written


def _varied(line: bytes, copy: int) -> bytes:
    row = json.loads(line)
    lot = random.Random(zlib.crc32(row["id"].encode()) + copy)
    suffix = "abcdefghijklmnopqrstuvwxyz"[copy % 26]
    words = row["text"].split(" ")
    for place in range(lot.randrange(EVERY), len(words), EVERY):
        place = min(len(words) - 1, place + lot.randrange(EVERY))
        if words[place].isalpha():
            words[place] += suffix
    row.update(id=f"{row['id']}#{copy}", text=" ".join(words))
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def corpus_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of documents-*, rejected-* and card.json of a finished corpus."""
    digest = hashlib.sha256()
    files = sorted([*folder.glob("documents-*.parquet"), *folder.glob("rejected-*.parquet"), folder / "card.json"])
    for path in files:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def mill(source: Path, out: Path, flags: list[str], *, fresh: bool = True, **more: Any) -> Usage:
    """`textmill corpus` on one file into one folder."""
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    return run([*TEXTMILL, "corpus", source, "--out", out, "--quiet", *flags], **more)


def workers(documents: Path, out: Path, flags: list[str], repeats: int) -> dict[str, Any]:
    """Wall seconds with 1 and 2 workers on one file, in turn; the ratio repeat by repeat."""
    mill(_piece(documents, out, 2_000_000), out / "run", [*flags, "--workers", "1"]).checked()
    contestants: dict[str, Callable[[int], Usage]] = {
        f"{count} worker{'s' * (count > 1)}": lambda _, count=count: mill(  # type: ignore[misc]
            documents, out / "run", [*flags, "--workers", str(count)], memory=False
        )
        for count in (1, 2)
    }
    runs = interleaved(contestants, repeats)
    one, two = runs.values()
    ratio = ratios(two, one, "wall")
    rows = [
        (
            name,
            Spread.of([usage.wall for usage in usages]).show(".1f"),
            Spread.of([usage.cpu for usage in usages]).show(".1f"),
        )
        for name, usages in runs.items()
    ]
    lines = [
        f"One file of {documents.stat().st_size / 1e6:.0f} MB, {repeats} interleaved runs",
        "",
        table(("", "wall s", "CPU s"), rows),
        "",
        f"Two workers are {ratio.show()} times as fast as one.",
    ]
    return {
        "wall": {name: [usage.wall for usage in usages] for name, usages in runs.items()},
        "cpu": {name: [usage.cpu for usage in usages] for name, usages in runs.items()},
        "ratio": ratio.to_json(),
        "table": "\n".join(lines),
    }


def memory(documents: Path, out: Path, flags: list[str], large: int, count: int) -> dict[str, Any]:
    """Peak memory of the process tree at growing sizes: every page once (PSS), and resident sets summed."""
    rows, figures = [], {}
    for size in (*SIZES, *([large] if large else [])):
        piece = out / "memory.jsonl"
        if size <= documents.stat().st_size:
            slice_lines(documents, piece, size)
        else:
            enlarge(documents, piece, size)
        usage = mill(piece, out / "run", [*flags, "--workers", str(count)]).checked()
        read = piece.stat().st_size
        peaks = {"peak_pss": usage.peak_pss, "peak_rss": usage.peak_rss}
        figures[read] = {**peaks, "wall": usage.wall, "cpu": usage.cpu}
        shown = [f"{value / 1e6:.0f}" for value in (read, *peaks.values())]
        rows.append((*shown, f"{usage.wall:.1f}", f"{usage.cpu:.1f}"))
        print(f"{shown[0]} MB: {shown[1]} MB of memory ({shown[2]} summed), {usage.wall:.1f} s", flush=True)
        piece.unlink()
    return {
        "workers": count,
        "sizes": figures,
        "table": table(("input MB", f"peak PSS MB, {count} workers", "peak RSS MB, summed", "wall s", "CPU s"), rows),
    }


def determinism(documents: Path, out: Path, flags: list[str], engines: list[list[str]]) -> dict[str, Any]:
    """The corpus's hash for each way to run it."""
    hashes = {}
    for engine in engines:
        name = " ".join(engine)
        mill(documents, out / "run", [*flags, *engine]).checked()
        hashes[name] = corpus_hash(out / "run" / "corpus")
        print(f"{name}: {hashes[name]}", flush=True)
    same = len(set(hashes.values())) == 1
    return {
        "hashes": hashes,
        "same": same,
        "table": "\n".join(
            [
                table(("", "SHA-256 of documents, rejects and card"), [(n, h[:16]) for n, h in hashes.items()]),
                "",
                "All the same." if same else "THEY DIFFER.",
            ]
        ),
    }


def measured_chunks(run_folder: Path) -> dict[str, int]:
    """Finished chunk -> moment it was written (ns), in a corpus that is being made or was killed."""
    folder = run_folder / "corpus.partial" / "measured"
    found = {}
    for path in folder.glob("[0-9]*.json"):
        try:
            found[path.stem] = path.stat().st_mtime_ns
        except OSError:
            continue
    return found


def _kill_after(seconds: float) -> Callable[[int], None]:
    """Kills the command and all its workers when it has run that long."""

    def wait(process: int) -> None:
        time.sleep(seconds)
        if process not in descendants(os.getpid()):
            return
        doomed = descendants(process)
        for one in (process, *doomed):
            try:
                os.kill(one, signal.SIGKILL)
            except ProcessLookupError:
                continue

    return wait


def kills(documents: Path, out: Path, flags: list[str], times: int, count: int, seed: int) -> dict[str, Any]:
    """Kill a run at random moments and start it again until it ends.

    Compares its hash with that of an undisturbed run, and looks whether a chunk that had been finished before a kill
    was written again. What is lost is what was in work: the chunks begun and not finished, at most one a worker;
    their bytes are those of the largest chunks, as many as there are workers.
    """
    undisturbed = mill(documents, out / "whole", [*flags, "--workers", str(count)]).checked()
    expected = corpus_hash(out / "whole" / "corpus")
    moments = random.Random(seed)
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    redone: list[str] = []
    killed: list[dict[str, float]] = []
    finished: dict[str, int] = {}
    while True:
        seconds = moments.uniform(0.05, 0.9) * undisturbed.wall / max(1, times / 2)
        kill = _kill_after(seconds) if len(killed) < times else None
        watch = _Watch(folder)
        usage = mill(documents, folder, [*flags, "--workers", str(count)], fresh=False, while_running=kill)
        seen = watch.stop()
        redone += [chunk for chunk, moment in finished.items() if seen.get(chunk, moment) != moment]
        if kill is None or usage.code == 0:
            usage.checked()
            break
        finished = measured_chunks(folder)
        killed.append({"after": seconds, "chunks_finished": len(finished)})
        print(f"killed after {seconds:.1f} s with {len(finished)} chunks finished", flush=True)
    found = corpus_hash(folder / "corpus")
    result = {
        "kills": killed,
        "seed": seed,
        "workers": count,
        "finished_chunks_done_again": redone,
        "same": found == expected,
        "undisturbed_wall": undisturbed.wall,
    }
    result["table"] = (
        f"{len(killed)} kills at random moments (seed {seed}, {count} workers): {len(redone)} finished chunks were "
        f"done again; the corpus is {'the same' if result['same'] else 'NOT THE SAME'}, byte by byte."
    )
    return result


class _Watch:
    """Notes when each chunk's record was last written, until it is stopped; they vanish when a run ends."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ended = folder, threading.Event()
        self.seen: dict[str, int] = {}
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()

    def _look(self) -> None:
        while not self.ended.wait(0.1):
            self.seen.update(measured_chunks(self.folder))

    def stop(self) -> dict[str, int]:
        """Chunk -> last moment of writing."""
        self.ended.set()
        self.thread.join()
        return self.seen


def _piece(documents: Path, out: Path, size: int) -> Path:
    piece = out / f"first-{size}.jsonl"
    if not piece.exists():
        slice_lines(documents, piece, size)
    return piece


def main() -> None:
    """Run one of the four and print its table; the raw figures go to OUT/NAME.json."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("workers", "memory", "determinism", "kills"))
    parser.add_argument("--documents", type=Path, default=Path("/tmp/bench-corpus/en.jsonl"))
    parser.add_argument("--megabytes", type=float, default=0, help="use only the first MB of it; 0 for all")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/scaling"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="for memory and kills")
    parser.add_argument("--large", type=float, default=LARGE / 1e6, help="memory: largest input in MB; 0 for none")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-ray", action="store_true", help="determinism: leave Ray out")
    mine, flags = sys.argv[1:], []
    if "--" in mine:
        flags, mine = mine[mine.index("--") + 1 :], mine[: mine.index("--")]
    asked = parser.parse_args(mine)
    asked.out.mkdir(parents=True, exist_ok=True)
    documents = _piece(asked.documents, asked.out, int(asked.megabytes * 1e6)) if asked.megabytes else asked.documents
    if asked.what == "workers":
        result = workers(documents, asked.out, flags, asked.repeats)
    elif asked.what == "memory":
        result = memory(documents, asked.out, flags, int(asked.large * 1e6), asked.workers)
    elif asked.what == "determinism":
        engines = [["--workers", "1"], ["--workers", "2"], *([] if asked.no_ray else [["--engine", "ray"]])]
        result = determinism(documents, asked.out, flags, engines)
    else:
        result = kills(documents, asked.out, flags, asked.kills, asked.workers, asked.seed)
    result |= {"machine": machine(), "flags": flags, "documents": str(documents)}
    (asked.out / f"{asked.what}.json").write_text(json.dumps(result, indent=2))
    print(result["table"])


if __name__ == "__main__":
    main()
