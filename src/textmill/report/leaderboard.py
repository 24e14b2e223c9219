"""The families of a comparison for the page: rows, and quality against training time. Touches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from textmill.base.settings import show_count, show_duration
from textmill.report.figures import _safe, bars, is_number, plain, ticks


def board_view(board: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of `leaderboard.json`; None without one.

    Returns:
        `rows` (families and mixtures, best first), `figure` (quality against time), `bars` (the still drawing),
        `recommendation`, `failed`, `samples`.
    """
    if not board:
        return None
    rows = [row for row in board.get("rows", []) if is_number(row.get("bits_per_byte"))]
    if not rows:
        return None
    own = [row for row in rows if row.get("kind") == "family"]
    shown = [
        {
            "label": row.get("label") or row.get("family"),
            "kind": "model" if row.get("kind") == "family" else "baseline",
            "bits_per_byte": row["bits_per_byte"],
            "low": row.get("low"),
            "high": row.get("high"),
        }
        for row in rows
        if row.get("comparable")
    ]
    return {
        "rows": rows,
        "figure": quality_against_time(own),
        "bars": bars(shown)["bars"] if shown else [],
        "recommendation": board.get("recommendation", ""),
        "failed": board.get("failed", []),
        "samples": [row for row in own if row.get("sample")],
        "budget_seconds": board.get("budget_seconds"),
    }


def quality_against_time(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Bits per byte against seconds of training (on a logarithmic axis), a point for each family, its area growing with
    its parameters."""
    import math

    import plotly.graph_objects as go

    drawn = [row for row in rows if row.get("comparable") and is_number(row.get("seconds"))]
    if len(drawn) < 2:
        return None
    seconds = [max(0.1, float(row["seconds"])) for row in drawn]
    values = [float(row["bits_per_byte"]) for row in drawn]
    # Families trained for one share of time stand above one another: labels to both sides in turn overlap less.
    ranks = {place: rank for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__))}
    sides = ["middle left" if ranks[place] % 2 else "middle right" for place in range(len(values))]
    figure = go.Figure()
    figure.add_scatter(
        x=seconds,
        y=values,
        mode="markers+text",
        text=[_safe(row.get("label")) + ("*" if row.get("bound") else "") for row in drawn],
        textposition=sides,
        textfont={"color": "var(--ink)", "size": 12},
        marker={
            "color": "var(--model)",
            "size": [7 + 3 * max(0.0, math.log10(max(1, row.get("parameters") or 1)) - 3) for row in drawn],
            "opacity": 0.85,
        },
        customdata=[
            f"{value:.3f} bits per byte after {show_duration(taken)}, "
            f"{show_count(row.get('parameters') or 0)} parameters"
            for row, value, taken in zip(drawn, values, seconds, strict=True)
        ],
        hovertemplate="%{text}: %{customdata}<extra></extra>",
        cliponaxis=False,
    )
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.1
    every = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14400.0, 86400.0)
    left, right = math.log10(min(seconds)) - 0.3, math.log10(max(seconds)) + 0.3
    marks = [mark for mark in every if left <= math.log10(mark) <= right] or [seconds[0]]
    return plain(
        figure,
        height=400,
        showlegend=False,
        hovermode="closest",
        xaxis_type="log",
        xaxis_range=[left, right],
        xaxis_tickvals=marks,
        xaxis_ticktext=[show_duration(mark) for mark in marks],
        xaxis_title_text="time of training",
        xaxis_showgrid=False,
        yaxis_range=[low - margin, high + 1.6 * margin],
        yaxis_tickvals=ticks(low, high),
        yaxis_title_text="bits per byte of validation text (lower is better)",
        yaxis_gridcolor="var(--wash)",
    )
