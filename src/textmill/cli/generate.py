"""`textmill generate`: continue a prompt. Reads a model, writes standard output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from textmill.base.errors import UsageError, nearest
from textmill.cli.options import Json, Quiet
from textmill.generation.config import SamplingConfig

if TYPE_CHECKING:
    from textmill.generation.loading import OpenModel
    from textmill.generation.sampling import Generation

DEFAULT = SamplingConfig()
DRAWING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")
"""Settings of a draw, which beam search does not make."""


def generate(
    run: Path,
    /,
    *prompt: Annotated[str, Parameter(allow_leading_hyphen=True)],
    sampling: Annotated[SamplingConfig, Parameter(name="*")] = DEFAULT,
    stream: bool | None = None,
    beams: int | None = None,
    length_penalty: float | None = None,
    source: str | None = None,
    device: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue a prompt.

    A model trained from raw text does one thing: it reads what is there and writes what could come next,
    token by token. Each token is drawn from the model's probabilities; the options shape that draw.

    Examples:

        textmill generate runs/mine "Once upon a time"

        textmill generate runs/mine "Once upon a time" --temperature 0.8 -n 3 --seed 1

        textmill generate runs/mine                          # from the beginning of a document

        echo "Once upon a time" | textmill generate runs/mine - --json

    Parameters
    ----------
    run
        The run (or a model folder).
    prompt
        The text to continue; "-" reads it from standard input; left out, the model begins a document.
    stream
        Show the text as it is written; left out, a single sample on a terminal is streamed.
    beams
        Search for the likeliest text with so many beams instead of drawing one; -n gives the best n of them.
    length_penalty
        With --beams: the power of the length by which a text's log-probability is divided. 0 favours short texts, 1
        (the default) compares nats a token, more favours long ones.
    source
        With --beams and an encoder-decoder: the text that it reads first.
    device
        Where to compute: cpu, cuda; left out, a GPU if there is one.
    """
    import sys

    if beams is None and (length_penalty is not None or source is not None):
        typed = "--length-penalty" if length_penalty is not None else "--source"
        raise UsageError(f"{typed} would have no effect.", "It belongs to beam search.", "Add --beams 4.")
    if beams is not None:
        if stream:
            raise UsageError("--stream would have no effect.", "Beams are known when all end.", "Leave it out.")
        changed = [name for name in DRAWING if getattr(sampling, name) != getattr(DEFAULT, name)]
        if changed:
            option = changed[0].replace("_", "-")
            raise UsageError(f"--{option} would have no effect.", "Beam search draws nothing.", "Leave it out.")
        _search(run, _text(prompt), beams, 1.0 if length_penalty is None else length_penalty, source, sampling,
                device, json)  # fmt: skip
        return
    if stream and json:
        raise UsageError("--stream would have no effect.", "--json prints once all is written.", "Leave one out.")
    if stream and sampling.n > 1:
        raise UsageError(
            f"{sampling.n} samples cannot be streamed.",
            "They would be written into one another.",
            "Leave out -n or --stream.",
        )
    text = _text(prompt)

    from textmill.generation.loading import open_model

    opened = open_model(run, device)
    if stream is None:
        stream = sampling.n == 1 and not json and sys.stdout.isatty()
    if stream:
        samples, seconds = _stream(opened, text, sampling)
    else:
        samples, seconds = _all(opened, text, sampling, json)
    if not quiet:
        _figures(samples, seconds, sampling)


def _search(
    run: Path,
    text: str,
    beams: int,
    length_penalty: float,
    source: str | None,
    sampling: SamplingConfig,
    device: str | None,
    as_json: bool,
) -> None:
    """The likeliest texts by beam search, one after another or as JSON."""
    import dataclasses
    import json

    from textmill.generation.beam import beam_search
    from textmill.generation.loading import open_model

    opened = open_model(run, device)
    found = beam_search(
        opened.model,
        opened.tokenizer,
        [text],
        beams,
        length_penalty=length_penalty,
        max_tokens=sampling.max_tokens,
        best=sampling.n,
        sources=None if source is None else [source],
    )[0]
    if as_json:
        record = {"model": str(opened.folder), "prompt": text, "beams": beams, "length_penalty": length_penalty}
        print(json.dumps({**record, "samples": [dataclasses.asdict(one) for one in found]}, ensure_ascii=False))
        return
    for number, one in enumerate(found, 1):
        if len(found) > 1:
            print(f"{'' if number == 1 else chr(10)}──── {number} of {len(found)}, score {one.score:.3f} ────")
        print(f"{text}{one.text}")


def _refuse_options(words: tuple[str, ...]) -> None:
    """A mistyped option must not be taken for the text to continue."""
    import dataclasses
    import re

    options = [word for word in words if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", word)]
    if not options:
        return
    known = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(SamplingConfig)]
    typed = options[0].partition("=")[0]
    raise UsageError(
        f'Unknown option "{typed}".{nearest(typed, [*known, "--stream", "--device", "--json"])}',
        fix="See: textmill generate --help (a text that begins so can come by a pipe: type - for the prompt)",
    )


def _text(words: tuple[str, ...]) -> str:
    """The text to continue, as typed or from standard input (without the newline that a shell adds)."""
    import sys

    _refuse_options(words)
    if len(words) > 1:
        raise UsageError(
            f"The prompt came as {len(words)} words.", "It has to be one.", f'Put it in quotes: "{" ".join(words)}"'
        )
    if words != ("-",):
        return words[0] if words else ""
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            "The prompt on standard input is not UTF-8.",
            f"Byte {error.start} cannot be read.",
            "Convert it first: iconv -t utf-8 prompt.txt | textmill generate RUN -",
        ) from error


def _stream(opened: OpenModel, text: str, sampling: SamplingConfig) -> tuple[list[Generation], float]:
    """Write one sample as it comes."""
    import sys

    from textmill.generation.sampling import stream

    samples: list[Generation] = []
    sys.stdout.write(text)
    sys.stdout.flush()
    for event in stream(opened.model, opened.tokenizer, text, sampling):
        sys.stdout.write(event.text)
        sys.stdout.flush()
        if event.generation is not None:
            samples.append(event.generation)
    print(flush=True)
    return samples, samples[0].seconds


def _all(opened: OpenModel, text: str, sampling: SamplingConfig, as_json: bool) -> tuple[list[Generation], float]:
    """Write all samples when they are done, apart from each other, or as one JSON object."""
    import json
    import time

    from textmill.base.settings import to_mapping
    from textmill.generation.sampling import generate

    began = time.monotonic()
    samples = generate(opened.model, opened.tokenizer, [text], sampling)
    seconds = time.monotonic() - began
    if as_json:
        record = {
            "model": str(opened.folder),
            "prompt": text,
            "seed": samples[0].seed,
            "sampling": to_mapping(sampling),
            "samples": [to_mapping(sample) for sample in samples],
        }
        print(json.dumps(record, ensure_ascii=False))
    else:
        for number, sample in enumerate(samples, 1):
            if sampling.n > 1:
                print(f"{'' if number == 1 else chr(10)}──── sample {number} of {sampling.n} ────")
            print(f"{text}{sample.text}")
    return samples, seconds


def _figures(samples: list[Generation], seconds: float, sampling: SamplingConfig) -> None:
    """Speed, seed, and what was left out of the prompt, on standard error."""
    import sys

    sys.stdout.flush()
    first = samples[0]
    if first.prompt_dropped:
        print(
            f"The prompt is longer than the model can see: its first {first.prompt_dropped} tokens were "
            f"left out, {first.prompt_tokens} were read.",
            file=sys.stderr,
        )
    count = sum(len(sample.ids) for sample in samples)
    seed = f", seed {first.seed}" if sampling.temperature > 0 else ""
    print(
        f"{count} tokens in {seconds:.1f} s ({count / max(seconds, 1e-9):.0f} tokens/s){seed}",
        file=sys.stderr,
    )
