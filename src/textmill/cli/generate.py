"""`textmill generate`: continue a prompt. Reads a model, writes standard output."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from textmill.base.errors import Failure, UsageError, nearest
from textmill.cli.options import Json, Quiet
from textmill.generation.config import SamplingConfig

if TYPE_CHECKING:
    from textmill.generation.constraints import ConstraintSpec
    from textmill.generation.contrastive import ContrastiveSearch
    from textmill.generation.engine.alone import Writer
    from textmill.generation.loading import OpenModel
    from textmill.generation.sampler import Matcher
    from textmill.generation.sampling import Generation

DEFAULT = SamplingConfig()
OTHERS = ("--stream", "--device", "--json", "--beams", "--length-penalty", "--beam-groups", "--diversity-penalty",
          "--must-contain", "--penalty-alpha", "--source", "--json-schema", "--regex", "--choice", "--grammar",
          "--weights", "--lora")  # fmt: skip
"""Options besides the settings of a draw."""
SEARCHING = ("n", "max_tokens")
"""Settings that a beam search has; the others belong to a draw."""


def generate(
    run: Path,
    /,
    *prompt: Annotated[str, Parameter(allow_leading_hyphen=True)],
    sampling: Annotated[SamplingConfig, Parameter(name="*")] = DEFAULT,
    stream: bool | None = None,
    beams: int | None = None,
    length_penalty: float | None = None,
    beam_groups: int | None = None,
    diversity_penalty: float | None = None,
    must_contain: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    penalty_alpha: float | None = None,
    source: str | None = None,
    json_schema: Path | None = None,
    regex: str | None = None,
    choice: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    grammar: Path | None = None,
    weights: Literal["auto", "float32", "int8", "int4"] = "auto",
    lora: Path | None = None,
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

        textmill generate model.Q4_K_M.gguf "Once upon a time"

        textmill generate runs/mine                          # from the beginning of a document

        echo "Once upon a time" | textmill generate runs/mine - --json

    Parameters
    ----------
    run
        The run, a model folder, or a GGUF file, whose quantized weights are used as they are.
    prompt
        The text to continue; "-" reads it from standard input; left out, the model begins a document.
    stream
        Show the text as it is written; left out, a single sample on a terminal is streamed.
    beams
        Search for the likeliest text with so many beams instead of drawing one; -n gives the best n of them.
    length_penalty
        With --beams: the power of the length by which a text's log-probability is divided. 0 favours short texts, 1
        (the default) compares nats a token, more favours long ones.
    beam_groups
        With --beams: divide the beams into so many groups that find texts unlike one another (diverse beam search); as
        many as beams for the greatest variety.
    diversity_penalty
        With --beam-groups: what a group pays, in nats, for a token that a group before it chose at the same place (0.5
        when left out); more makes the texts more different and less likely.
    must_contain
        With --beams: a phrase that has to appear in the text written; may be given several times. More beams place it
        better.
    penalty_alpha
        Contrastive search: of the --top-k likeliest tokens take the one that is likely and least like what was read and
        written before, by the model's hidden vectors; 0.6 with --top-k 4 is usual, more avoids repetition more. Nothing
        is drawn. For Transformers and recurrent models.
    source
        With --beams or --penalty-alpha and an encoder-decoder: the text that it reads first.
    json_schema
        File with a JSON schema: the text written is JSON that it allows, or the schema is refused.
    regex
        The text written matches this regular expression from beginning to end.
    choice
        The text written is one of these; may be given several times.
    grammar
        File with a grammar (Lark or GBNF) that the text written follows.
    weights
        How a Transformer's weights are kept: auto is int8 from 50 million parameters on, where that is several times
        faster, and as they are below; float32, int8 and int4 can be asked for.
    lora
        Folder of a LoRA adapter, as PEFT saves it, to write with; the model itself stays as it is.
    device
        Where to compute: cpu, cuda; left out, a GPU if there is one.
    """
    import sys

    _check_together(beams, length_penalty, beam_groups, diversity_penalty, must_contain, penalty_alpha, source, weights)
    if stream and json:
        raise UsageError("--stream would have no effect.", "--json prints once all is written.", "Leave one out.")
    spec = _constraint(json_schema, regex, choice, grammar)
    if beams is not None:
        if stream:
            raise UsageError("--stream would have no effect.", "Beams are known when all end.", "Leave it out.")
        paid = 0.0 if beam_groups is None else 0.5
        settings = {
            "beams": beams,
            "length_penalty": 1.0 if length_penalty is None else length_penalty,
            "groups": 1 if beam_groups is None else beam_groups,
            "diversity_penalty": paid if diversity_penalty is None else diversity_penalty,
            "must_contain": must_contain,
        }
        _search(run, _text(prompt), settings, source, sampling, spec, device, json, lora)
        return
    if stream and sampling.n > 1:
        raise UsageError(
            f"{sampling.n} samples cannot be streamed.",
            "They would be written into one another.",
            "Leave out -n or --stream.",
        )
    text = _text(prompt)

    from textmill.generation.loading import open_model

    opened = open_model(run, device, lora)
    writer: Writer | ContrastiveSearch
    if penalty_alpha is None:
        from textmill.generation.engine.alone import Writer

        writer = Writer(opened, weights)
    else:
        from textmill.generation.contrastive import ContrastiveSearch

        writer = ContrastiveSearch(opened.model, opened.tokenizer, penalty_alpha, source)
    constraint = _compiled(spec, opened)
    if stream is None:
        stream = sampling.n == 1 and not json and sys.stdout.isatty()
    if stream:
        samples, seconds = _stream(writer, text, sampling, constraint)
    else:
        how = {} if penalty_alpha is None else {"penalty_alpha": penalty_alpha}
        samples, seconds = _all(writer, opened.folder, text, sampling, json, constraint, how)
    if not quiet:
        _figures(samples, seconds, sampling.temperature > 0 and penalty_alpha is None, writer.note)


def _check_together(
    beams: int | None,
    length_penalty: float | None,
    beam_groups: int | None,
    diversity_penalty: float | None,
    must_contain: tuple[str, ...],
    penalty_alpha: float | None,
    source: str | None,
    weights: str,
) -> None:
    """Refuse options that would have no effect beside the others."""
    searching = {
        "--length-penalty": length_penalty is not None,
        "--beam-groups": beam_groups is not None,
        "--diversity-penalty": diversity_penalty is not None,
        "--must-contain": bool(must_contain),
    }
    typed = [name for name, given in searching.items() if given]
    if beams is None and typed:
        raise UsageError(f"{typed[0]} would have no effect.", "It belongs to beam search.", "Add --beams 4.")
    if beams is None and penalty_alpha is None and source is not None:
        raise UsageError(
            "--source would have no effect.", "It belongs to beam search and to contrastive search.", "Add --beams 4."
        )
    if beams is not None and penalty_alpha is not None:
        raise UsageError(
            "--penalty-alpha and --beams exclude each other.",
            "Contrastive search keeps one text, beam search several.",
            "Leave one out.",
        )
    if diversity_penalty is not None and beam_groups is None:
        raise UsageError(
            "--diversity-penalty would have no effect.", "It is what one group of beams pays for another's tokens.",
            "Add --beam-groups 2.",
        )  # fmt: skip
    if weights != "auto" and (beams is not None or penalty_alpha is not None):
        option = "--beams" if beams is not None else "--penalty-alpha"
        raise UsageError(
            "--weights would have no effect.", f"With {option} the model computes as it is.", "Leave it out."
        )


def _constraint(
    json_schema: Path | None, regex: str | None, choice: tuple[str, ...], grammar: Path | None
) -> ConstraintSpec | None:
    """What was asked for, with files read."""
    if json_schema is None and regex is None and not choice and grammar is None:
        return None
    from textmill.generation.constraints import ConstraintSpec

    texts: dict[str, Any] = {}
    for name, path in (("json_schema", json_schema), ("grammar", grammar)):
        try:
            texts[name] = None if path is None else path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} cannot be read.", str(error), "Name a text file in UTF-8.") from None
    return ConstraintSpec(regex=regex, choice=choice or None, **texts)


def _compiled(spec: ConstraintSpec | None, opened: OpenModel) -> Matcher | None:
    """The constraint for this model's tokens."""
    if spec is None:
        return None
    from textmill.generation.constraints import compile_constraint

    return compile_constraint(spec, opened.tokenizer, opened.model.vocabulary)


def _search(
    run: Path,
    text: str,
    settings: dict[str, Any],
    source: str | None,
    sampling: SamplingConfig,
    spec: ConstraintSpec | None,
    device: str | None,
    as_json: bool,
    lora: Path | None,
) -> None:
    """The likeliest texts by beam search, one after another or as JSON."""
    import json

    every = (field.name for field in dataclasses.fields(SamplingConfig) if field.name not in SEARCHING)
    changed = [name for name in every if getattr(sampling, name) != getattr(DEFAULT, name)]
    if changed:
        option = changed[0].replace("_", "-")
        raise UsageError(f"--{option} would have no effect.", "Beam search draws nothing.", "Leave it out.")

    from textmill.generation.beam import beam_search
    from textmill.generation.loading import open_model

    opened = open_model(run, device, lora)
    found = beam_search(
        opened.model,
        opened.tokenizer,
        [text],
        **settings,
        max_tokens=sampling.max_tokens,
        best=sampling.n,
        sources=None if source is None else [source],
        constraint=_compiled(spec, opened),
    )[0]
    if not found:
        raise Failure(
            f"No text within {sampling.max_tokens} tokens does what was asked for.",
            "Every one that was found is cut off before it follows the whole constraint and holds every phrase.",
            f"Allow more: --max-tokens {4 * sampling.max_tokens}, or --beams {4 * settings['beams']}.",
        )
    if as_json:
        record = {"model": str(opened.folder), "prompt": text, **settings}
        print(json.dumps({**record, "samples": [dataclasses.asdict(one) for one in found]}, ensure_ascii=False))
        return
    for number, one in enumerate(found, 1):
        if len(found) > 1:
            print(f"{'' if number == 1 else chr(10)}──── {number} of {len(found)}, score {one.score:.3f} ────")
        print(f"{text}{one.text}")


def _refuse_options(words: tuple[str, ...]) -> None:
    """A mistyped option must not be taken for the text to continue."""
    import re

    options = [word for word in words if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", word)]
    if not options:
        return
    known = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(SamplingConfig)]
    typed = options[0].partition("=")[0]
    raise UsageError(
        f'Unknown option "{typed}".{nearest(typed, [*known, *OTHERS])}',
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


def _stream(
    writer: Writer | ContrastiveSearch, text: str, sampling: SamplingConfig, constraint: Matcher | None
) -> tuple[list[Generation], float]:
    """Write one sample as it comes."""
    import sys

    samples: list[Generation] = []
    sys.stdout.write(text)
    sys.stdout.flush()
    for event in writer.stream(text, sampling, constraint=constraint):
        sys.stdout.write(event.text)
        sys.stdout.flush()
        if event.generation is not None:
            samples.append(event.generation)
    print(flush=True)
    return samples, samples[0].seconds


def _all(
    writer: Writer | ContrastiveSearch,
    folder: Path,
    text: str,
    sampling: SamplingConfig,
    as_json: bool,
    constraint: Matcher | None,
    how: dict[str, Any],
) -> tuple[list[Generation], float]:
    """Write all samples when they are done, apart from each other, or as one JSON object; `how` replaces the seed."""
    import json
    import time

    from textmill.base.settings import to_mapping

    began = time.monotonic()
    samples = writer.generate(text, sampling, constraint=constraint)
    seconds = time.monotonic() - began
    if as_json:
        record = {
            "model": str(folder),
            "prompt": text,
            **(how or {"seed": samples[0].seed}),
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


def _figures(samples: list[Generation], seconds: float, drawn: bool, note: str) -> None:
    """Speed, the seed of what was drawn, and what was left out of the prompt, on standard error."""
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
    seed = f", seed {first.seed}" if drawn else ""
    how = f", {note}" if note else ""
    print(
        f"{count} tokens in {seconds:.1f} s ({count / max(seconds, 1e-9):.0f} tokens/s){seed}{how}",
        file=sys.stderr,
    )
