"""`textmill latent`: sentences to latent vectors and back. Reads a model, writes standard output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet

if TYPE_CHECKING:
    import numpy as np

    from textmill.models.variational.segment_model import SegmentModel
    from textmill.tokens.tokenizer import Tokenizer

TEXTS = {"reconstruct": (1, None), "sample": (0, 0), "interpolate": (2, 2), "measure": (0, None)}
"""How many texts each work takes, at least and at most."""


def latent(
    run: Path,
    work: Literal["reconstruct", "sample", "interpolate", "measure"],
    /,
    *texts: Annotated[str, Parameter(allow_leading_hyphen=True)],
    n: Annotated[int, Parameter(name=["-n", "--n"])] = 5,
    steps: int = 7,
    path: Literal["spherical", "linear"] = "spherical",
    temperature: float | None = None,
    seed: int = 0,
    samples: int | None = None,
    device: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look into an autoencoder or a VAE: sentences to latent vectors and back.

    reconstruct encodes each sentence and writes it again from its vector alone; sample writes sentences from
    vectors drawn from the prior; interpolate writes what lies between two sentences; measure says how much of
    the text the vectors hold (divergence, mutual information, active units) and how probable the text is.

    Examples:

        textmill latent runs/mine reconstruct "The state of the union is strong."

        textmill latent runs/mine sample -n 10 --seed 3

        textmill latent runs/mine interpolate "We want peace." "The budget has grown." --steps 7

        textmill latent runs/mine measure --json

    Parameters
    ----------
    run
        The run (or a model folder) of `--family autoencoder` or `--family vae`.
    work
        reconstruct, sample, interpolate or measure.
    texts
        Sentences: one or more to reconstruct, two to interpolate between; to measure, texts, or none for the
        run's own test split.
    n
        Sentences to sample.
    steps
        Sentences along the way from the first to the second, both ends counted.
    path
        spherical keeps the vectors as long as those of the prior; linear is the straight line.
    temperature
        0 writes the most probable token each time (the default, but for sample: 1, which draws).
    seed
        Of the draws.
    samples
        Latent samples a segment to measure with; more give a tighter bound.
    device
        Where to compute: cpu, cuda; left out, a GPU if there is one.
    """
    _check(work, texts, n, steps, temperature, samples)
    model, tokenizer, folder = _open(run, device)
    if work == "measure":
        _measure(model, tokenizer, run, texts, samples, as_json=json)
        return
    heat = temperature if temperature is not None else (1.0 if work == "sample" else 0.0)
    record: dict[str, Any] = {"model": str(folder), "family": model.family, "work": work, "temperature": heat}
    if work == "reconstruct":
        record["sentences"] = [_reconstruct(model, tokenizer, text, heat, seed) for text in texts]
        lines = [f"{one['text'].strip()}\n    → {one['written'].strip()}" for one in record["sentences"]]
    elif work == "sample":
        from textmill.models.variational.writing import prior_samples, write

        written = write(model, prior_samples(model, n, seed), temperature=heat, seed=seed)
        record |= {"seed": seed, "written": [tokenizer.decode(one) for one in written]}
        lines = [one.strip() for one in record["written"]]
    else:
        record |= _interpolate(model, tokenizer, texts, steps, path, heat, seed)
        lines = [f"{share:4.2f}  {one.strip()}" for share, one in zip(record["shares"], record["written"], strict=True)]
    _show(record, lines, as_json=json, quiet=quiet)


def _check(
    work: str, texts: tuple[str, ...], n: int, steps: int, temperature: float | None, samples: int | None
) -> None:
    """Refuse what cannot be done before anything is loaded."""
    least, most = TEXTS[work]
    if len(texts) < least or (most is not None and len(texts) > most):
        wanted = {
            "reconstruct": "at least one sentence",
            "sample": "no sentence",
            "interpolate": "two sentences",
            "measure": "",
        }[work]
        raise UsageError(
            f"{work} takes {wanted}, not {len(texts)}.",
            fix='Put each sentence in quotes, such as: textmill latent RUN interpolate "One." "Two."',
        )
    if any(not text.strip() for text in texts):
        raise UsageError("One of the sentences is empty.", fix="Give a text in quotes.")
    for name, value, smallest in (("-n", n, 1), ("--steps", steps, 2), ("--samples", samples, 1)):
        if value is not None and value < smallest:
            raise UsageError(f"{name} must be at least {smallest}, not {value}.")
    if temperature is not None and temperature < 0:
        raise UsageError(f"--temperature must not be negative, but it is {temperature}.")


def _open(run: Path, device: str | None) -> tuple[SegmentModel, Tokenizer, Path]:
    """The model with its tokenizer, or an error where it has no latent vectors."""
    from textmill.generation.loading import model_folder
    from textmill.models.families import family_of

    folder = model_folder(run)
    family = family_of(folder)
    if family not in ("autoencoder", "vae"):
        raise UsageError(
            f"The model in {run} has no latent vectors.",
            f"It is of the family {family}; only autoencoder and vae have them.",
            "Make one with: textmill build my_texts/ --family vae --out runs/vae",
        )
    from textmill.models.load import load_model
    from textmill.models.variational.segment_model import SegmentModel
    from textmill.tokens.tokenizer import Tokenizer

    model: Any = load_model(folder, device)
    assert isinstance(model, SegmentModel)
    return model, Tokenizer.load(folder), folder


def _segments(model: SegmentModel, tokenizer: Tokenizer, text: str) -> list[np.ndarray]:
    import numpy as np

    from textmill.models.variational.writing import split_segments

    return split_segments(model, np.array(tokenizer.encode(text), dtype=np.int64))


def _reconstruct(model: SegmentModel, tokenizer: Tokenizer, text: str, heat: float, seed: int) -> dict[str, Any]:
    """What comes back of a text, segment by segment."""
    from textmill.models.variational.writing import encode, write

    parts = _segments(model, tokenizer, text)
    written = write(model, encode(model, parts), temperature=heat, seed=seed)
    return {
        "text": text,
        "segments": [tokenizer.decode(part) for part in parts],
        "written": "".join(tokenizer.decode(one) for one in written),
    }


def _interpolate(
    model: SegmentModel, tokenizer: Tokenizer, texts: tuple[str, ...], steps: int, path: str, heat: float, seed: int
) -> dict[str, Any]:
    """The sentences between two, and what of them was left out."""
    from textmill.models.variational.latent import linear_path, spherical_path
    from textmill.models.variational.writing import encode, write

    parts = [_segments(model, tokenizer, text) for text in texts]
    first, last = encode(model, [one[0] for one in parts])
    way = (spherical_path if path == "spherical" else linear_path)(first, last, steps)
    written = write(model, way, temperature=heat, seed=seed)
    return {
        "path": path,
        "from": tokenizer.decode(parts[0][0]),
        "to": tokenizer.decode(parts[1][0]),
        "cut": any(len(one) > 1 for one in parts),
        "shares": [round(step / (steps - 1), 4) for step in range(steps)],
        "written": [tokenizer.decode(one) for one in written],
    }


def _measure(
    model: SegmentModel, tokenizer: Tokenizer, run: Path, texts: tuple[str, ...], samples: int | None, *, as_json: bool
) -> None:
    """The latent report of texts, or of the run's test split."""
    import json
    import math

    import numpy as np

    from textmill.models.variational.measures import latent_report

    if texts:
        documents = [np.array([*tokenizer.encode(text), tokenizer.document_end]) for text in texts]
    else:
        from textmill.tokens.shards import Shards

        tokens = run / "tokens"
        if not tokens.exists():
            raise UsageError(f"{run} has no test split.", "It is a model folder, not a run.", "Give texts to measure.")
        shards = Shards(tokens, "test")
        edges = [0, *shards.ends.tolist()]
        documents = [shards.read(edges[i], edges[i + 1]).astype(np.int64) for i in range(shards.documents)]
    report = latent_report(model, documents, samples=samples)
    if as_json:
        print(json.dumps(report))
        return
    figures = report["importance_weighted_nats"]
    rows = [
        ("segments measured", f"{report['segments']:,} of {report['segments_available']:,}"),
        ("reconstruction", f"{report['reconstruction_nats']:.2f} nats a segment"),
        ("divergence", f"{report['divergence_nats']:.2f} nats a segment"),
        (
            "mutual information",
            f"{report['mutual_information_nats']:.2f} nats (at most {report['mutual_information_ceiling']:.2f} could "
            "be seen)",
        ),
        ("active units", f"{report['active_units']} of {report['latent']}"),
        *((f"bound with {k} sample{'s' if k != '1' else ''}", f"{value:.2f} nats") for k, value in figures.items()),
        (
            f"score, {report['samples']} samples",
            f"{report['score_nats']:.2f} ± {1.96 * report['score_error']:.2f} nats a segment, "
            f"{report['nats_per_token'] / math.log(2):.3f} bits a token (an upper bound)",
        ),
    ]
    for name, value in rows:
        print(f"{name:22}{value}")


def _show(record: dict[str, Any], lines: list[str], *, as_json: bool, quiet: bool) -> None:
    import json
    import sys

    if as_json:
        print(json.dumps(record, ensure_ascii=False))
        return
    for line in lines:
        print(line)
    if record.get("cut") and not quiet:
        sys.stdout.flush()
        print(
            f'Only the first segment of each text was used: "{record["from"].strip()}" and "{record["to"].strip()}".',
            file=sys.stderr,
        )
