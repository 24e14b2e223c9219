"""`textmill states`: what the hidden states of an HMM run stand for. Reads RUN/model."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Any, Literal

from textmill.base.errors import UsageError
from textmill.cli.options import Json, Quiet


def states(
    run: Path,
    /,
    text: str | None = None,
    *,
    top: int = 8,
    by: Literal["lift", "probability"] = "lift",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look into a hidden Markov model: the tokens of each state, where it leads, how long it lasts.

    Each state is like a part of speech that nobody named: it emits tokens that stand in the same places. For a run
    made with `textmill build my_texts/ --family hmm`.

    Examples:

        textmill states runs/hmm

        textmill states runs/hmm "We hold these truths to be self-evident."

    Parameters
    ----------
    run
        Run directory, or a model folder.
    text
        Show the likeliest states behind this text (Viterbi) instead.
    top
        Tokens of each state, and states that it leads to.
    by
        lift: tokens that are more frequent in the state than elsewhere. probability: its most frequent ones.
    """
    import numpy as np

    from textmill.base.run import RUN_FILE
    from textmill.models.hmm.model import HiddenMarkov
    from textmill.tokens.tokenizer import Tokenizer, describe_token

    folder = run / "model" if (run / RUN_FILE).exists() else run
    if not (folder / "config.json").exists():
        raise UsageError(
            f"There is no model at {folder}.", fix=f"Make one with: textmill build my_texts/ --family hmm --out {run}"
        )
    model, tokenizer = HiddenMarkov.load(folder), Tokenizer.load(folder)

    def name(token: int) -> str:
        return describe_token(tokenizer, token)

    if text is not None:
        ids = np.array([*tokenizer.encode(text), tokenizer.document_end], dtype=np.int64)
        path, found = model.decode(ids)
        if json:
            pairs = [{"token": name(i), "state": int(state)} for i, state in zip(ids.tolist(), path, strict=True)]
            print(json_format.dumps({"path": pairs, "log_probability": float(found[0])}, ensure_ascii=False))
        else:
            print("  ".join(f"{name(i)}:{state}" for i, state in zip(ids.tolist(), path, strict=True)))
        return
    tokens, durations, stationary = model.top_tokens(top, by), model.durations(), model.stationary()
    rows: list[dict[str, Any]] = []
    for state in np.argsort(-model.occupancy, kind="stable").tolist():
        leads = np.argsort(-model.parameters.transitions[state], kind="stable")[: min(3, top)]
        rows.append(
            {
                "state": state,
                "share": float(model.occupancy[state]),
                "stationary": float(stationary[state]),
                "duration": float(durations[state]),
                "tokens": [name(token) for token in tokens[state].tolist()],
                "leads_to": [[int(other), float(model.parameters.transitions[state, other])] for other in leads],
            }
        )
    if json:
        print(json_format.dumps({"states": rows, "learned": model.history}, ensure_ascii=False))
        return
    for row in rows:
        onward = ", ".join(f"{other} {share:.0%}" for other, share in row["leads_to"])
        print(f"{row['state']:>4}  {row['share']:>5.1%}  {row['duration']:>5.1f} tokens  -> {onward}")
        print("      " + " | ".join(row["tokens"]))
