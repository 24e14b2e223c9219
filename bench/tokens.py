"""Tokenizers beside their peers: training to 8k and 32k, and encoding, on one file of documents, each run in a process
of its own.

`python -m bench.tokens --documents FILE.jsonl` prints CPU seconds and wall of the work itself (imports and reading
the file left out), the peak memory of the whole process, and whether the ids are equal. Peers that are not installed
are left out: rustbpe, sentencepiece, tiktoken.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.measure import Spread, Usage, interleaved, machine, run, table

SIZES = (8192, 32_768)
TRAINERS = ("textmill", "tokenizers", "rustbpe", "sentencepiece bpe", "sentencepiece unigram")
ENCODERS = ("textmill", "tokenizers", "tiktoken")
PACKAGES = ("textmill", "gigatoken", "tokenizers", "rustbpe", "sentencepiece", "tiktoken")


def read_texts(path: Path, limit: float) -> list[str]:
    """The first texts of a JSON-lines file, up to `limit` bytes."""
    texts, held = [], 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            texts.append(json.loads(line)["text"])
            held += len(texts[-1].encode())
            if held >= limit:
                break
    return texts


def trainer(name: str, texts: list[str], size: int) -> Callable[[], Any]:
    """What trains a vocabulary of `size` on `texts`, imports done."""
    if name == "textmill":
        from textmill.tokens.tokenizer import train_tokenizer

        return lambda: train_tokenizer(texts, size)
    if name == "tokenizers":
        import tokenizers
        from tokenizers import Regex, models, pre_tokenizers, trainers

        from textmill.tokens.splitting import SPLIT_PATTERN

        library = tokenizers.Tokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        settings = trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, initial_alphabet=alphabet, max_token_length=64, show_progress=False
        )
        return lambda: library.train_from_iterator(texts, trainer=settings)
    if name == "rustbpe":
        import rustbpe

        from textmill.tokens.splitting import SPLIT_PATTERN

        return lambda: rustbpe.Tokenizer().train_from_iterator(iter(texts), vocab_size=size, pattern=SPLIT_PATTERN)
    import io

    import sentencepiece

    return lambda: sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines()),
        model_writer=io.BytesIO(),
        vocab_size=size,
        model_type=name.split()[1],
        byte_fallback=True,
        minloglevel=2,
    )


def encoder(name: str, tokens: Path, texts: list[str]) -> Callable[[], Any]:
    """What encodes `texts` with the tokenizer in `tokens`, everything ready; it returns the number of tokens."""
    from textmill.corpus.texts import Texts
    from textmill.tokens.splitting import SPLIT_PATTERN
    from textmill.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(tokens)
    if name == "textmill":
        packed = Texts.from_strings(texts)
        tokenizer.encoder  # noqa: B018  (loads it)
        return lambda: len(tokenizer.encode_texts(packed)[0])
    if name == "tokenizers":
        return lambda: sum(len(found.ids) for found in tokenizer.library.encode_batch_fast(texts))
    import tiktoken

    special = set(tokenizer.special.values())
    ranks = {tokenizer.decode_bytes([i]): i for i in range(tokenizer.vocabulary) if i not in special}
    encoding = tiktoken.Encoding("own", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})
    return lambda: sum(map(len, encoding.encode_ordinary_batch(texts)))


def one(work: str, name: str, documents: Path, limit: float, size: int, tokens: Path) -> None:
    """One contestant, in its own process: prints what it took."""
    texts = read_texts(documents, limit)
    start = trainer(name, texts, size) if work == "train" else encoder(name, tokens, texts)
    wall, cpu = time.perf_counter(), time.process_time()
    found = start()
    result = {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "bytes": sum(len(text.encode()) for text in texts),
        "tokens": found if work == "encode" else None,
    }
    print(json.dumps(result))


def compare(work: str, names: list[str], documents: Path, limit: float, size: int, tokens: Path, repeats: int) -> str:
    """A table of one race."""

    def contestant(name: str) -> Callable[[int], Usage]:
        words = ["one", work, name, str(documents), str(limit), str(size), str(tokens)]
        return lambda _: run([sys.executable, "-m", "bench.tokens", *words])

    runs = interleaved({name: contestant(name) for name in names}, repeats, lambda line: print(line, file=sys.stderr))
    rows = []
    for name, usages in runs.items():
        results = [json.loads(usage.output.splitlines()[-1]) for usage in usages]
        rows.append(
            [
                name,
                Spread.of([result["bytes"] / 1e6 / result["cpu"] for result in results]).show(".1f"),
                Spread.of([result["wall"] for result in results]).show(),
                f"{max(usage.peak_rss for usage in usages) / 1e6:.0f}",
                *([f"{results[0]['tokens']:,}"] if work == "encode" else []),
            ]
        )
    head = ["", "MB/s of CPU", "wall, s", "peak memory, MB", *(["tokens"] if work == "encode" else [])]
    return table(head, rows)


def installed(names: tuple[str, ...]) -> list[str]:
    """Those whose package is there."""
    found = []
    for name in names:
        try:
            version(name.split()[0])
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def main() -> None:
    """The races, printed as Markdown."""
    if sys.argv[1:2] == ["one"]:
        work, name, documents, limit, size, tokens = sys.argv[2:]
        one(work, name, Path(documents), float(limit), int(size), Path(tokens))
        return
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--documents", type=Path, required=True)
    options.add_argument("--train-bytes", type=float, default=20e6)
    options.add_argument("--encode-bytes", type=float, default=20e6)
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    print(machine())
    print(", ".join(f"{name} {version(name)}" for name in installed(PACKAGES)))
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder)
        from textmill.tokens.tokenizer import train_tokenizer

        train_tokenizer(read_texts(chosen.documents, chosen.train_bytes), SIZES[1]).save(tokens)
        for size in SIZES:
            names = [name for name in installed(TRAINERS) if size == SIZES[0] or "unigram" not in name]
            print(f"\n## Training {size:,} on {chosen.train_bytes / 1e6:.0f} MB\n")
            print(compare("train", names, chosen.documents, chosen.train_bytes, size, tokens, chosen.repeats))
        print(f"\n## Encoding {chosen.encode_bytes / 1e6:.0f} MB with {SIZES[1]:,} tokens, all cores\n")
        names = installed(ENCODERS)
        print(compare("encode", names, chosen.documents, chosen.encode_bytes, SIZES[1], tokens, chosen.repeats))


if __name__ == "__main__":
    main()
