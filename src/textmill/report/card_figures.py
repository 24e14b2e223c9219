"""Figures of the data card: the histogram of lengths, and what each rule would drop at other thresholds. Colours are
CSS variables, as in figures.py. Touches nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from textmill.base.settings import show_count
from textmill.report.figures import is_number, plain

HISTOGRAM_HEIGHT = 300


def power_of_two(value: float) -> str:
    """A bin's edge in few letters: 512, 4 k, 2 M (k and M are powers of 1024 here, so that edges stay round)."""
    for size, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if value >= size and value % size == 0:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def lengths(histogram: Mapping[str, Any], middle: float = 0) -> dict[str, Any] | None:
    """Documents by length, on the card's own bins (powers of two, so the axis is logarithmic).

    Args:
        histogram: `edges` (characters; the last bin is open) and `documents` in each bin.
        middle: the median, 0 when it is not known.

    Returns:
        for the drawings and the table `bins` (`low`, `high` or None, `documents`, `share`,
        `height` in percent, `edge`), `middle`, `middle_at` in percent; None when there is nothing to draw.
    """
    edges, documents = histogram.get("edges"), histogram.get("documents")
    if not isinstance(edges, list) or not isinstance(documents, list) or not all(map(is_number, [*edges, *documents])):
        return None
    bins = list(zip(edges, [*edges[1:], None], documents, strict=False))
    filled = [at for at, (_, _, n) in enumerate(bins) if n > 0]
    if not filled or min(documents) < 0 or any(b <= a for a, b in pairwise(edges)):
        return None
    bins = bins[filled[0] : filled[-1] + 1]
    total, top = sum(n for _, _, n in bins), max(n for _, _, n in bins)
    shown = [
        {
            "low": low,
            "high": high,
            "documents": n,
            "share": n / total,
            "height": round(100 * n / (1.08 * top), 2),
            "edge": power_of_two(low),
        }
        for low, high, n in bins
    ]
    place = next(
        (at for at, (low, high, _) in enumerate(bins) if low <= middle and (high is None or middle < high)), None
    )
    middle_at = None
    if middle and place is not None:
        low, high, _ = bins[place]
        if high is None:
            inside = 0.5
        elif low < 1:
            inside = (middle - low) / (high - low)
        else:
            inside = math.log(middle / low) / math.log(high / low)
        middle_at = round(100 * (place + inside) / len(bins), 2)
    last = bins[-1][1]
    return {
        "bins": shown,
        "middle_at": middle_at,
        "last_edge": "" if last is None else power_of_two(last),
        "middle": middle,
    }


def lengths_plotly(drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The histogram that `lengths` gave, for plotly."""
    import plotly.graph_objects as go

    bins, last, middle, middle_at = (drawn[key] for key in ("bins", "last_edge", "middle", "middle_at"))
    figure = go.Figure(
        go.Bar(
            x=[at + 0.5 for at in range(len(bins))],
            y=[b["documents"] for b in bins],
            width=0.94,
            marker={"color": "var(--model)", "cornerradius": 3},
            hovertext=[f"{bin_words(b)} characters<br>{b['documents']:,} documents, {b['share']:.1%}" for b in bins],
            hoverinfo="text",
        )
    )
    if middle_at is not None:
        x = middle_at / 100 * len(bins)
        figure.add_shape(
            type="line", x0=x, x1=x, yref="paper", y0=0, y1=1, line={"color": "var(--ink)", "width": 1.2, "dash": "dot"}
        )
        figure.add_annotation(
            x=x,
            yref="paper",
            y=1,
            yanchor="bottom",
            xanchor="left" if middle_at < 50 else "right",
            showarrow=False,
            text=f"median {middle:,.0f}",
            font={"color": "var(--soft)", "size": 12},
        )
    edges = [b["edge"] for b in bins] + [last]
    step = 1 + (len(edges) - 1) // 12
    return plain(
        figure,
        showlegend=False,
        height=HISTOGRAM_HEIGHT,
        margin={"l": 8, "r": 28, "t": 26, "b": 8},
        bargap=0,
        xaxis_tickvals=list(range(0, len(edges), step)),
        xaxis_ticktext=edges[::step],
        xaxis_range=[0, len(bins)],
        xaxis_showgrid=False,
        xaxis_title_text="characters (each bar twice as long as the one before)",
        yaxis_title_text="documents",
        yaxis_rangemode="tozero",
        yaxis_gridcolor="var(--wash)",
    )


def bin_words(found: Mapping[str, Any]) -> str:
    """A bin in words: "512 – 1,023", "1,048,576 and more"."""
    if found["high"] is None:
        return f"{found['low']:,.0f} and more"
    return f"{found['low']:,.0f} – {found['high'] - 1:,.0f}"


def show_threshold(value: float) -> str:
    """A threshold for people: 0.162, 12.5, 100,000."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:g}"


def effect(rule: Mapping[str, Any], judged: float) -> dict[str, Any] | None:
    """Documents that one rule alone would drop against its threshold, as a line in a 100 × 100 box.

    Args:
        rule: `column`, `bound`, `threshold`, `would_drop` (list of `threshold`, `documents`).
        judged: number of documents that were judged.

    Returns:
        `points` (`threshold`, `documents`, `share`, `now`, and for those drawn `x`, `y`), `line`, `now`, `looser` and
        `stricter` (the neighbouring thresholds, or None), `low`, `high` (ends of the drawn axis), `top`; None when
        the card does not hold it.
    """
    tried = rule.get("would_drop")
    threshold: Any = rule.get("threshold")
    if not isinstance(tried, list) or not is_number(threshold):
        return None
    found = sorted(
        (one["threshold"], one["documents"])
        for one in tried
        if isinstance(one, Mapping) and is_number(one.get("threshold")) and is_number(one.get("documents"))
    )
    if not found:
        return None
    points = [
        {"threshold": at, "documents": n, "share": n / judged if judged else 0.0, "now": False} for at, n in found
    ]
    place = next((at for at, (value, _) in enumerate(found) if math.isclose(value, threshold, rel_tol=1e-5)), None)
    if place is not None:
        points[place]["now"] = True
    bound = "min" if rule.get("bound") == "min" else "max"
    below = points[place - 1] if place else None
    above = points[place + 1] if place is not None and place + 1 < len(points) else None
    return {
        "column": str(rule.get("column", "")),
        "bound": bound,
        "threshold": threshold,
        "points": points,
        "now": None if place is None else points[place],
        "looser": below if bound == "min" else above,
        "stricter": above if bound == "min" else below,
        **_drawn(points, place),
    }


def _drawn(points: list[dict[str, Any]], place: int | None) -> dict[str, Any]:
    """The line through the points, without the level stretches at its ends; a single point is not drawn."""
    first, last = 0, len(points) - 1
    here = len(points) // 2 if place is None else place
    while first + 1 < here and points[first]["documents"] == points[first + 1]["documents"]:
        first += 1
    while last - 1 > here and points[last]["documents"] == points[last - 1]["documents"]:
        last -= 1
    shown = points[first : last + 1]
    top = max(point["documents"] for point in shown)
    if len(shown) < 2:
        return {"line": "", "low": "", "high": "", "top": ""}
    logarithmic = shown[0]["threshold"] > 0
    places = [math.log(point["threshold"]) if logarithmic else float(point["threshold"]) for point in shown]
    width = places[-1] - places[0]
    for point, at in zip(shown, places, strict=True):
        point["x"] = round(100 * (at - places[0]) / width, 2)
        point["y"] = round(100 * point["documents"] / top, 2) if top else 0.0
    return {
        "line": " ".join(f"{point['x']:g},{100 - point['y']:g}" for point in shown),
        "low": show_threshold(shown[0]["threshold"]),
        "high": show_threshold(shown[-1]["threshold"]),
        "top": show_count(top),
    }
