"""`textmill embed`: texts to vectors. Reads a model, writes standard output or a file of numpy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet

if TYPE_CHECKING:
    from textmill.models.bert.embeddings import Embeddings


def embed(
    run: Path,
    /,
    *text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    pooling: Literal["mean", "cls"] = "mean",
    normalize: bool = True,
    out: Path | None = None,
    device: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn texts into vectors, so that like texts lie near each other.

    The model has to be an encoder (--family bert) or an encoder-decoder, trained here or elsewhere: a folder of
    Hugging Face with a BERT or T5 in it will do. Other families predict tokens and have no vector for a whole text.
    Written is one line for each text, its numbers apart by tabs.

    Examples:

        textmill embed runs/mine "The state of our Union is strong."

        textmill embed runs/mine - --out vectors.npy < sentences.txt

    Parameters
    ----------
    run
        The run (or a model folder).
    text
        The texts; "-" reads them from standard input, one a line.
    pooling
        mean: the mean of all tokens' vectors. cls: the vector of the first.
    normalize
        To length 1, so that the dot product of two vectors is their cosine.
    out
        File to write the vectors to (.npy, float32 [texts, width]) in place of standard output.
    device
        Where to compute: cpu, cuda; left out, a GPU if there is one.
    """
    import sys

    texts = _texts(text)
    if out is not None and out.suffix != ".npy":
        raise UsageError(f"{out} is no name for vectors.", "They are written in the form of numpy.", "End it in .npy.")

    from textmill.generation.loading import model_folder
    from textmill.models.bert.embeddings import embed_texts, open_encoder

    folder = model_folder(run)
    model, tokenizer = open_encoder(folder, device)
    found = embed_texts(model, tokenizer, texts, pooling=pooling, normalize=normalize)
    _write(found, texts, folder, out, json, pooling, normalize)
    if not quiet and (cut := int((found.cut > 0).sum())):
        print(
            f"{cut} of {len(texts)} texts are longer than the model reads at once: only their first "
            f"{model.context + 1 - sum(map(len, model.around))} tokens count.",
            file=sys.stderr,
        )


def _texts(words: tuple[str, ...]) -> list[str]:
    """The texts, as typed or from the lines of standard input."""
    import sys

    if not words:
        raise UsageError("There is no text to embed.", fix='Type it in quotes, or "-" to read lines from a pipe.')
    if words != ("-",):
        return list(words)
    try:
        lines = sys.stdin.buffer.read().decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(
            "The texts on standard input are not UTF-8.",
            f"Byte {error.start} cannot be read.",
            "Convert them first: iconv -t utf-8 texts.txt | textmill embed RUN -",
        ) from error
    if not lines:
        raise UsageError("There is no text on standard input.", fix="Send it lines: textmill embed RUN - < texts.txt")
    return lines


def _write(
    found: Embeddings, texts: list[str], folder: Path, out: Path | None, as_json: bool, pooling: str, normalize: bool
) -> None:
    """Vectors to the file or to standard output; with --json one object that says all."""
    import io
    import json

    import numpy as np

    from textmill.base.files import write_atomic

    if out is not None:
        buffer = io.BytesIO()
        np.save(buffer, found.vectors)
        write_atomic(out, buffer.getvalue())
    if as_json:
        each = [
            {"text": text, "tokens": int(tokens), "cut": int(cut)}
            for text, tokens, cut in zip(texts, found.tokens, found.cut, strict=True)
        ]
        if out is None:
            each = [{**one, "vector": vector.tolist()} for one, vector in zip(each, found.vectors, strict=True)]
        record = {
            "model": str(folder),
            "pooling": pooling,
            "normalized": normalize,
            "width": found.vectors.shape[1],
            "out": None if out is None else str(out),
            "texts": each,
        }
        print(json.dumps(record, ensure_ascii=False))
    elif out is None:
        for vector in found.vectors:
            print("\t".join(f"{value:.6f}" for value in vector))
