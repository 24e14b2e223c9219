"""The figures, each twice from the same numbers: for plotly, and as geometry that shows without scripts.

Colours are CSS variables (`var(--model)`): the page puts in the light or the dark ones. Touches nothing.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textmill.base.settings import show_duration

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = {"model": "var(--model)", "baseline": "var(--baseline)", "compressor": "var(--compressor)"}
TICKS = 5
LARGEST = 1e300
LABEL_GAP = 0.065
"""Smallest distance between two line labels, as a share of the figure's height."""


def plain(figure: go.Figure, **layout: Any) -> dict[str, Any]:
    """The figure as JSON-able data, in the page's own style and without plotly's template."""
    import plotly.graph_objects as go

    axis = {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "fixedrange": True,
        "tickfont": {"size": 13},
        "title": {"font": {"size": 13}},
        "automargin": True,
    }
    figure.update_layout(
        template=go.layout.Template(),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "var(--soft)", "size": 13},
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        hoverlabel={"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        xaxis=axis,
        yaxis=axis,
        dragmode=False,
    )
    figure.update_layout(**layout)
    return dict(json.loads(figure.to_json()))


def is_number(value: Any) -> bool:
    """Whether the value is a finite number that can be drawn (an int of 400 digits cannot)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _safe(text: Any) -> str:
    """Plotly reads labels as a little HTML: show them as text."""
    return html.escape(str(text), quote=False)


def ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers between `low` and `high`, about `count` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def duration_ticks(seconds: float) -> tuple[list[float], list[str]]:
    """Positions and words for a time axis from 0 to `seconds`: whole seconds, minutes or hours."""
    for unit, name in ((3600, "h"), (60, "min"), (1, "s")):
        if seconds >= 2 * unit or unit == 1:
            places = [t * unit for t in ticks(0, seconds / unit, 6)]
            return places, [f"{p / unit:g} {name}" if p else "0" for p in places]
    return [0.0], ["0"]


def spread(values: Sequence[float], low: float, high: float, gap: float = LABEL_GAP) -> list[float]:
    """Where to write each value's label so that none covers another: near it, in [0, 1], 0 at the bottom."""
    places = [0.0] * len(values)
    previous = -gap
    for index in sorted(range(len(values)), key=lambda i: values[i]):
        previous = max((values[index] - low) / (high - low), previous + gap)
        places[index] = previous
    excess = max(0.0, max(places, default=0.0) - 1.0)
    return [place - excess for place in places]


def bars(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Bits per byte of each row as bars with their 95% intervals.

    Returns:
        `plotly` (figure), `bars` (each with `label`, `kind`, `value`, `low`, `high`, and `width`, `from`,
        `to` in percent of the figure's width).
    """
    import plotly.graph_objects as go

    top = max((max(r["bits_per_byte"], r.get("high") or 0.0) for r in rows), default=1.0) * 1.08 or 1.0
    still = []
    for row in rows:
        low: Any = row.get("low")
        high: Any = row.get("high")
        value = row["bits_per_byte"]
        kind = row.get("kind") if row.get("kind") in COLOURS else "baseline"
        known = isinstance(low, int | float) and isinstance(high, int | float)
        still.append(
            {
                "label": str(row.get("label") or row.get("name")),
                "kind": kind,
                "value": value,
                "low": low if known else None,
                "high": high if known else None,
                "width": round(100 * value / top, 2),
                "from": round(100 * low / top, 2) if known else None,
                "to": round(100 * high / top, 2) if known else None,
            }
        )
    drawn = still[::-1]
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=[f"{_safe(_short(b['label']))}  " for b in drawn],
            x=[b["value"] for b in drawn],
            width=0.62,
            marker={"color": [COLOURS[b["kind"]] for b in drawn], "cornerradius": 3},
            text=[f"{b['value']:.3f}" for b in drawn],
            textposition="inside",
            insidetextanchor="start",
            insidetextfont={
                "color": ["var(--on-model)" if b["kind"] == "model" else "var(--on-bar)" for b in drawn],
                "size": 13,
            },
            hovertext=[
                f"{_safe(b['label'])}: {b['value']:.4f}"
                + (f"<br>95% interval {b['low']:.4f} – {b['high']:.4f}" if b["low"] is not None else "")
                for b in drawn
            ],
            hoverinfo="text",
        )
    )
    measured = [b for b in drawn if b["high"] is not None]
    figure.add_scatter(  # whiskers of their own, for a bar without an interval would get a dot of one
        y=[f"{_safe(_short(b['label']))}  " for b in measured],
        x=[b["value"] for b in measured],
        mode="markers",
        marker={"opacity": 0},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [b["high"] - b["value"] for b in measured],
            "arrayminus": [b["value"] - b["low"] for b in measured],
            "color": "var(--ink)",
            "thickness": 1.4,
            "width": 5,
        },
        hoverinfo="skip",
        showlegend=False,
    )
    data = plain(
        figure,
        showlegend=False,
        height=58 + 40 * len(drawn),
        xaxis_range=[0, top],
        xaxis_title_text="bits per byte (lower is better)",
        yaxis_tickfont_color="var(--ink)",
        yaxis_showgrid=False,
        yaxis_type="category",
    )
    return {"plotly": data, "bars": still, "top": top}


def _short(label: str, limit: int = 26) -> str:
    return label if len(label) <= limit else label[: limit - 1].rstrip() + "…"


def curve(training: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Bits per byte against seconds: validation, training loss, level `lines` (`label`, `value`, `kind`).

    Returns:
        `plotly`, and for the still drawing `training` and `validation` (point lists in a 1000 × 400 box),
        `lines`, `x`, `y` (ticks in percent); None when there is nothing to draw.
    """
    import plotly.graph_objects as go

    validation = [(v["seconds"], v["bits_per_byte"]) for v in training["validation"] if v.get("seconds") is not None]
    steps = [
        (s["seconds"], s["bits_per_byte"])
        for s in training["steps"]
        if s.get("bits_per_byte") is not None and s.get("seconds") is not None
    ]
    if not validation and not steps:
        return None
    values = [v for _, v in validation] or [v for _, v in steps]
    goals = [line["value"] for line in lines]
    smallest = min([*values, *goals, *(v for _, v in steps[len(steps) // 2 :])])
    # The first seconds fall from about 8: cut them off, so that what matters fills the figure.
    largest = min(max([*values, *goals, *(v for _, v in steps)]), max([2.2 * min(values), *(1.08 * g for g in goals)]))
    margin = 0.06 * (largest - smallest) or 0.1
    low, high = smallest - margin, largest + margin
    last = max(t for t, _ in [*validation, *steps])
    places, words = duration_ticks(last)

    figure = go.Figure()
    if steps:
        figure.add_scatter(
            x=[t for t, _ in steps],
            y=[round(v, 4) for _, v in steps],
            name="training",
            mode="lines",
            line={"color": "var(--training)", "width": 1.2},
            hovertemplate="training %{y:.3f}<extra></extra>",
        )
    if validation:
        figure.add_scatter(
            x=[t for t, _ in validation],
            y=[v for _, v in validation],
            name="validation",
            mode="lines+markers",
            line={"color": "var(--model)", "width": 2.6},
            marker={"size": 6},
            customdata=[show_duration(t) for t, _ in validation],
            hovertemplate="validation %{y:.3f} after %{customdata}<extra></extra>",
        )
    heights = spread(goals, low, high)
    for line, height in zip(lines, heights, strict=True):
        colour = COLOURS.get(str(line.get("kind")), "var(--baseline)")
        figure.add_shape(
            type="line",
            xref="paper",
            x0=0,
            x1=1,
            y0=line["value"],
            y1=line["value"],
            line={"color": colour, "width": 1.2, "dash": "dot"},
        )
        figure.add_annotation(
            xref="paper",
            yref="paper",
            x=1,
            y=min(1.0, height + 0.005),
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
            text=f"{_safe(_short(line['label']))} {line['value']:.2f}",
            font={"color": "var(--soft)", "size": 12},
        )
    data = plain(
        figure,
        height=380,
        hovermode="closest",
        showlegend=True,
        legend={"orientation": "h", "y": -0.12, "x": 0, "font": {"color": "var(--soft)"}},
        xaxis_tickvals=places,
        xaxis_ticktext=words,
        xaxis_range=[0, last * 1.01],
        xaxis_showgrid=False,
        yaxis_range=[low, high],
        yaxis_title_text="bits per byte",
        yaxis_gridcolor="var(--wash)",
    )

    def path(points: list[tuple[float, float]]) -> str:
        return " ".join(
            f"{1000 * t / (last * 1.01 or 1):.1f},{400 * (high - min(v, high + 1)) / (high - low):.1f}"
            for t, v in points
        )

    def up(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        "plotly": data,
        "training": path(steps),
        "validation": path(validation),
        "lines": [
            {**line, "at": up(line["value"]), "label_at": round(100 * height, 2)}
            for line, height in zip(lines, heights, strict=True)
        ],
        "y": [{"at": up(t), "text": f"{t:g}"} for t in ticks(low, high)],
        "x": [{"at": round(100 * p / (last * 1.01 or 1), 2), "text": w} for p, w in zip(places, words, strict=True)],
    }


def stages(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Seconds planned and taken, stage by stage (`name`, `predicted`, `actual`; either may be None)."""
    import plotly.graph_objects as go

    shown = [row for row in rows if row.get("predicted") is not None or row.get("actual") is not None]
    if len(shown) < 2:  # one bar says nothing that the table does not
        return None
    top = max(max(row.get("predicted") or 0.0, row.get("actual") or 0.0) for row in shown) * 1.05 or 1.0
    drawn = list(reversed(shown))
    figure = go.Figure()
    for key, name, colour in (
        ("actual", "taken", "var(--model)"),
        ("predicted", "planned", "var(--compressor)"),
    ):
        figure.add_bar(
            orientation="h",
            name=name,
            y=[f"{_safe(row['name'])}  " for row in drawn],
            x=[row.get(key) for row in drawn],
            marker={"color": colour, "cornerradius": 2},
            hovertext=[f"{name} {show_duration(row[key])}" if row.get(key) is not None else "" for row in drawn],
            hoverinfo="text",
        )
    places, words = duration_ticks(top)
    data = plain(
        figure,
        height=90 + 44 * len(drawn),
        barmode="group",
        bargap=0.32,
        bargroupgap=0.12,
        legend={"orientation": "h", "y": -0.18, "x": 0, "traceorder": "reversed"},
        xaxis_tickvals=places,
        xaxis_ticktext=words,
        xaxis_range=[0, top],
        yaxis_tickfont_color="var(--ink)",
        yaxis_showgrid=False,
        yaxis_type="category",
    )
    still = [
        {
            **row,
            "predicted_width": round(100 * (row.get("predicted") or 0.0) / top, 2),
            "actual_width": round(100 * (row.get("actual") or 0.0) / top, 2),
        }
        for row in shown
    ]
    return {"plotly": data, "rows": still}
