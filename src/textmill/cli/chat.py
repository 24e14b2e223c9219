"""`textmill chat`: talk to a model. Reads a model and standard input, writes standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import Parameter

from textmill.generation.config import SamplingConfig

DEFAULT = SamplingConfig()


def chat(
    run: Path,
    /,
    *,
    sampling: Annotated[SamplingConfig, Parameter(name="*")] = DEFAULT,
    weights: Literal["auto", "float32", "int8", "int4"] = "auto",
    device: str | None = None,
) -> None:
    """Talk to a model.

    A model trained from raw text alone does not answer, it continues: type the beginning of something and it
    goes on; what you type next is added to that text. A model that was fine-tuned to answer keeps the turns
    of the conversation, the oldest leaving when they no longer fit.

    Commands inside: /help /reset /temperature /system /save /quit. Ctrl-C stops an answer, Ctrl-D leaves.

    Examples:

        textmill chat runs/mine

        textmill chat runs/mine --temperature 0.5 --max-tokens 100

        echo "Once upon a time" | textmill chat runs/mine --seed 1

    Parameters
    ----------
    run
        The run, a model folder, or a GGUF file, whose quantized weights are used as they are.
    weights
        How a Transformer's weights are kept: auto is int8 from 50 million parameters on, where that is several times
        faster, and as they are below; float32, int8 and int4 can be asked for.
    device
        Where to compute: cpu, cuda; left out, a GPU if there is one.
    """
    import signal
    import sys

    from textmill.generation.chat import Chat, converse
    from textmill.generation.engine.alone import Writer
    from textmill.generation.loading import open_model

    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    opened = open_model(run, device)
    # The CLI turns SIGTERM into what Ctrl-C does, and here that would only stop an answer.
    signal.signal(signal.SIGTERM, _leave)
    writer = Writer(opened, weights)
    if writer.note:
        print(f"({writer.note}; exact ones: --weights float32)", file=sys.stderr)
    converse(Chat(opened.model, opened.tokenizer, sampling, answers=opened.chat, write=writer.stream))


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
