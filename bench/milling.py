"""End to end beside datatrove: filter, deduplicate, tokenize the same text. Starts processes, writes below --out.

`python -m bench.milling --documents en.jsonl --oracle-python PYTHON`, where PYTHON is that of an environment with
`datatrove[io,processing] spacy` (0.10.1 when this was written). Both get the same slice of the corpus and the same
tokenizer.json (32,768 byte-level BPE tokens, GPT-2's pattern, trained once on the text), one worker, one thread, and
run in turn; each run is a fresh process from start to exit, imports included. A warm-up before the clock lets numba
fill its cache, which a user pays once (its cost is printed). Both need seconds to start, and a small slice would show
little else; so the slice has 32 MB, and the whole corpus follows for ours alone. The fair comparison is on one large
text: `--megabytes 0 --dedup kept --whole 0` gives both the whole file (datatrove then takes about 8 CPU minutes for 221
MB of text). Two loads:

- kept: what a user does. datatrove chains Gopher repetition, Gopher quality, C4, FineWeb, MinHash of what is left
  and tokenizing of what is left; ours is `textmill corpus --rules datatrove-fineweb` and `textmill tokenize`.
- all: every step on every document, so that dedup and tokenizing weigh as much as they can. datatrove filters all,
  deduplicates all, tokenizes all that dedup left; ours measures all columns of those rules, drops by none of them,
  deduplicates and tokenizes.

In both ours also repairs encodings, normalizes, identifies languages, writes what it rejected, the judgement columns
and a data card, verifies each near-duplicate, and makes the splits; datatrove does none of it here. Not the same:
datatrove stops judging a document at the first rule that fails, ours measures all. MB are 10^6 bytes of UTF-8 text.

No other peer is in this table. NeMo Curator 1.4.0 cannot be installed without CUDA (its core requires torch and
some twenty nvidia packages; near-duplicates need a GPU). dolma 1.2.1 pins numpy<2 and has had no release since 2025-07.
duplodocus is not on PyPI. text-dedup 0.4 asks for PySpark. data-juicer 1.6.1 installs without CUDA, but `dj-process`
fetches ray, scipy and PyTorch with CUDA by itself when it first runs. Its MinHash operator alone needs ray, scipy and
aiohttp: with --data-juicer-python that step, the one that means the same there, runs beside `textmill corpus --measures
none`, which also cleans, identifies languages and verifies.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.measure import TEXTMILL, Spread, Usage, interleaved, machine, ratios, run, slice_lines, table, version_in

PEERS = Path(__file__).parent / "peers"
VOCABULARY = 32_768
TOKENIZER_BYTES = 40_000_000
"""Text that the shared tokenizer is trained on."""
WARM_BYTES = 300_000
"""Text of the warm-up."""
ONE_THREAD = {
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "POLARS_MAX_THREADS": "1",
}
FLAGS = {
    "kept": ("--rules", "datatrove-fineweb", "--measures", "none"),
    "all": ("--measures", "gopher", "--measures", "c4", "--measures", "fineweb"),
    "dedup": ("--measures", "none"),
}
"""Options of `textmill corpus` for each load."""
SAME = ("--min-characters", "1", "--max-symbol-ratio", "1", "--small-corpus", "0", "--pii", "off")
"""Switches off what datatrove has no counterpart of in its recipe, so that the same documents are judged."""


def train_tokenizer(documents: Path, out: Path) -> None:
    """The tokenizer of both contestants, unless it is there. Trained by `tokenizers`, Hugging Face's library."""
    if out.exists():
        return
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from textmill.tokens.tokenizer import SPECIAL_TOKENS

    def texts() -> Any:
        taken = 0
        with documents.open("rb") as lines:
            for line in lines:
                taken += len(line)
                if taken > TOKENIZER_BYTES:
                    return
                yield json.loads(line)["text"]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out))


def text_bytes(path: Path) -> int:
    """UTF-8 bytes of the documents' text."""
    with path.open("rb") as lines:
        return sum(len(json.loads(line)["text"].encode()) for line in lines)


def mill(documents: Path, out: Path, tokenizer: Path | None, flags: Sequence[str], workers: int = 1) -> Usage:
    """Ours: both commands (without a tokenizer the first) into a fresh folder. The output is card and index, JSON."""
    shutil.rmtree(out, ignore_errors=True)
    settings = [*SAME, *flags, "--workers", str(workers), "--json", "--quiet"]
    first = run([*TEXTMILL, "corpus", documents, "--out", out, *settings], env=ONE_THREAD).checked()
    if tokenizer is None:
        return first
    words = [*TEXTMILL, "tokenize", str(out), "--tokenizer", str(tokenizer), "--json", "--quiet"]
    second = run(words, env=ONE_THREAD).checked()
    return first.then(second)


def datatrove(python: Path, documents: Path, work: Path, tokenizer: Path, dedup: str) -> Usage:
    """The peer: peers/datatrove_pipeline.py in its own environment. The last line of the output is JSON."""
    return run(
        [
            python, PEERS / "datatrove_pipeline.py", "--input", documents, "--work", work,
            "--tokenizer", tokenizer, "--dedup", dedup,
        ],
        env=ONE_THREAD,
    )  # fmt: skip


def data_juicer(python: Path, documents: Path, work: Path) -> Usage:
    """The peer: peers/datajuicer_minhash.py in its own environment."""
    return run(
        [python, PEERS / "datajuicer_minhash.py", "--input", documents, "--work", work],
        env={**ONE_THREAD, "HF_HUB_OFFLINE": "1", "UV_OFFLINE": "1"},  # it would install packages by itself
    )


def json_values(output: str) -> list[Any]:
    """The JSON objects in a program's output, each beginning at the start of a line."""
    decoder, values, place = json.JSONDecoder(), [], 0
    output = f"\n{output}"
    while (place := output.find("\n{", place)) >= 0:
        value, place = decoder.raw_decode(output, place + 1)
        values.append(value)
    return values


def counts(name: str, usage: Usage) -> dict[str, Any]:
    """Documents read and kept, and tokens, as the contestant itself reports them."""
    said = json_values(usage.output)
    if not name.startswith("textmill"):
        report = said[-1]
        return {**report["kept"], "kept": report["kept"]["deduplicated"], "cpu": report["cpu"]}
    card = said[0]
    dropped = {rule: amounts["documents"] for rule, amounts in card["dropped"].items()}
    kept = card["kept"]["documents"]
    tokens = sum(one["tokens"] for one in said[1]["splits"].values()) if len(said) > 1 else 0
    return {"read": kept + sum(dropped.values()), "kept": kept, "dropped": dropped, "tokens": tokens}


def compare(asked: argparse.Namespace) -> dict[str, Any]:
    """Run everything; returns the figures and the table."""
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = out / "tokenizer.json"
    train_tokenizer(asked.documents, tokenizer)
    piece, warm = out / "slice.jsonl", out / "warm.jsonl"
    slice_lines(asked.documents, piece, int(asked.megabytes * 1e6) or asked.documents.stat().st_size)
    slice_lines(asked.documents, warm, WARM_BYTES)
    size = text_bytes(piece)
    loads = ("kept", "all") if asked.dedup == "both" else (asked.dedup,)
    contestants: dict[str, Callable[[int], Usage]] = {}
    for load in loads:
        contestants[f"textmill, {load}"] = lambda _, load=load: mill(  # type: ignore[misc]
            piece, out / f"ours-{load}", tokenizer, FLAGS[load]
        )
        if asked.oracle_python:
            contestants[f"datatrove, {load}"] = lambda _, load=load: datatrove(  # type: ignore[misc]
                asked.oracle_python, piece, out / "datatrove", tokenizer, load
            )
    if asked.data_juicer_python:
        contestants["textmill, dedup"] = lambda _: mill(piece, out / "ours-dedup", None, FLAGS["dedup"])
        contestants["data-juicer, dedup"] = lambda _: data_juicer(asked.data_juicer_python, piece, out / "data-juicer")
    # The first run of each fills numba's cache, the second tells what starting up costs from then on.
    warmed = {load: [mill(warm, out / "warm", tokenizer, FLAGS[load]).cpu for _ in range(2)] for load in loads}
    if asked.oracle_python:
        datatrove(asked.oracle_python, warm, out / "datatrove", tokenizer, "kept").checked()
    if asked.data_juicer_python:
        data_juicer(asked.data_juicer_python, warm, out / "data-juicer").checked()
    runs = interleaved(contestants, asked.repeats)
    versions = {"textmill": machine()["textmill"]}
    if asked.oracle_python:
        versions["datatrove"] = version_in(asked.oracle_python, "datatrove")
    if asked.data_juicer_python:
        versions["data-juicer"] = version_in(asked.data_juicer_python, "py-data-juicer")
    rows, figures = [], {}
    for name, usages in runs.items():
        rows.append(_row(name, versions[name.partition(",")[0]], usages, size))
        figures[name] = _figures(usages, size, counts(name, usages[-1]))
        peer = name.replace("textmill", "data-juicer" if name.endswith("dedup") else "datatrove")
        if name.startswith("textmill") and peer in runs:
            figures[name]["peer"] = peer
            figures[name]["times_the_peer"] = ratios(usages, runs[peer]).to_json()
    lines = [
        f"End to end on {size / 1e6:.1f} MB of text, one worker; medians of {asked.repeats} interleaved runs "
        "(least to most)",
        "",
        table(("contestant", "version", "wall s", "CPU s", "MB/s per core", "peak RSS MB", "kept"), rows),
        "",
    ]
    for name, figure in figures.items():
        if "peer" in figure:
            spread = Spread(**figure["times_the_peer"])
            lines.append(f"{name}: {spread.show('.1f')} times as much text per CPU second as {figure['peer']}")
    if asked.whole:
        whole = text_bytes(asked.documents)
        alone: dict[str, Callable[[int], Usage]] = {
            f"textmill, {load}, whole": lambda _, load=load: mill(  # type: ignore[misc]
                asked.documents, out / f"ours-{load}", tokenizer, FLAGS[load]
            )
            for load in loads
        }
        ended = interleaved(alone, asked.whole)
        for name, usages in ended.items():
            figures[name] = _figures(usages, whole, counts(name, usages[-1]))
        lines += [
            "",
            f"The whole corpus, {whole / 1e6:.0f} MB of text, one worker",
            "",
            table(
                ("contestant", "version", "wall s", "CPU s", "MB/s per core", "peak RSS MB", "kept"),
                [_row(name, versions["textmill"], usages, whole) for name, usages in ended.items()],
            ),
        ]
        for name, usages in ended.items():
            peer = name.removesuffix(", whole").replace("textmill", "datatrove")
            if peer in runs:
                rate = statistics.median(size / usage.cpu for usage in runs[peer])
                ours = statistics.median(whole / usage.cpu for usage in usages)
                lines.append(f"{name}: {ours / rate:.1f} times the text per CPU second of {peer} on its slice")
    for load, (first, second) in warmed.items():
        lines.append(f"{load}: starting up costs {second:.1f} CPU s, the first time on a machine {first:.1f}")
    return {
        "machine": machine(), "versions": versions, "text_bytes": size, "repeats": asked.repeats,
        "warm_up_cpu": warmed, "figures": figures, "table": "\n".join(lines),
    }  # fmt: skip


def _row(name: str, version: str, usages: list[Usage], size: int) -> tuple[object, ...]:
    told = counts(name, usages[-1])
    return (
        name,
        version,
        Spread.of([usage.wall for usage in usages]).show(".1f"),
        Spread.of([usage.cpu for usage in usages]).show(".1f"),
        Spread.of([size / 1e6 / usage.cpu for usage in usages]).show(".2f"),
        f"{max(usage.peak_rss for usage in usages) / 1e6:.0f}",
        f"{told['kept']:,} of {told['read']:,}",
    )


def _figures(usages: list[Usage], size: int, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "wall": [usage.wall for usage in usages],
        "cpu": [usage.cpu for usage in usages],
        "peak_rss": [usage.peak_rss for usage in usages],
        "peak_pss": [usage.peak_pss for usage in usages],
        "text_bytes": size,
        "counts": told,
    }


def main() -> None:
    """Compare and print; the raw figures go to OUT/milling.json."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.milling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=Path, default=Path("/tmp/bench-corpus/en.jsonl"))
    parser.add_argument("--oracle-python", type=Path, help="interpreter of an environment with datatrove")
    parser.add_argument("--data-juicer-python", type=Path, help="interpreter with py-data-juicer, ray, scipy, aiohttp")
    parser.add_argument(
        "--megabytes", type=float, default=32.0, help="size of the slice that both mill; 0 for the file"
    )
    parser.add_argument("--dedup", choices=("kept", "all", "both"), default="both", help="the load, see above")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--whole", type=int, default=1, help="runs of ours alone on the whole file; 0 for none")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/milling"))
    asked = parser.parse_args()
    result = compare(asked)
    (asked.out / "milling.json").write_text(json.dumps(result, indent=2))
    print(result["table"])


if __name__ == "__main__":
    main()
