"""The plots of a report, made with Plotly: data in, traces and layout out. Colours of text and lines are the page's."""

from __future__ import annotations

import html
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from plotly import graph_objects as go

# In the middle between light and dark, so that they are read on both.
BLUE, ORANGE, GREY, GREEN, PURPLE, RED = "#3f83c8", "#e0812c", "#8a8f98", "#3a9d6a", "#9467bd", "#d0504f"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, "#b8860b", "#17a2b8", GREY)
_SCALE = [[0.0, "rgba(63,131,200,0.04)"], [1.0, "rgba(63,131,200,0.85)"]]
_LONGEST_NAME = 34
_FRAME = 90  # pixels of title, axis and legend
_LEAST_HEIGHT = 160  # below it Plotly draws the title over the axis


def require_plotly() -> None:
    """Say what to install where no plot can be drawn.

    Raises:
        ImportError: plotly is missing.
    """
    if importlib.util.find_spec("plotly") is None:
        raise ImportError("Reports are drawn with plotly: pip install 'edgeprune[report]'")


def axis_name(name: str) -> str:
    """A name for an axis: its end, where it is long."""
    return name if len(name) <= _LONGEST_NAME else "…" + name[1 - _LONGEST_NAME :]


def plotly_text(text: str) -> str:
    """Text in which Plotly reads nothing as mark-up."""
    return html.escape(text, quote=False)


def row_height(rows: int, bars: int = 1) -> int:
    """The pixels of a plot with a row for each name."""
    return max(_LEAST_HEIGHT, _FRAME + rows * (14 + 8 * bars))


def row_bars(
    names: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    texts: Mapping[str, Sequence[str]],
    title: str,
    *,
    colours: Sequence[str | Sequence[str]] = COLOURS,
    line: float | None = None,
    overlay: bool = False,
) -> dict[str, Any]:
    """Horizontal bars: a row for each name, a bar in it for each series.

    Args:
        names: the rows, from the top; two may have the same name.
        series: a value for each row, None for no bar, by the name of the series.
        texts: the values as they are written, by the same names.
        title: of the axis.
        colours: one for each series, or one for each of its bars.
        line: where a line is drawn across.
        overlay: whether the bars of a row lie on each other, rather than beside each other.
    """
    from plotly import graph_objects as go

    places = list(range(len(names)))
    traces = [
        go.Bar(
            orientation="h",
            y=places,
            x=list(values),
            name=plotly_text(series_name),
            marker={"color": colour if isinstance(colour, str) else list(colour)},
            width=(0.8, 0.45)[number] if overlay and number < 2 else None,
            customdata=[
                [plotly_text(name), plotly_text(text)] for name, text in zip(names, texts[series_name], strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{fullData.name}: %{customdata[1]}<extra></extra>",
        )
        for number, ((series_name, values), colour) in enumerate(zip(series.items(), _repeated(colours), strict=False))
    ]
    axis = {"tickvals": places, "ticktext": [plotly_text(axis_name(name)) for name in names], "autorange": "reversed"}
    layout = go.Layout(
        barmode="overlay" if overlay else "group",
        yaxis=axis,
        xaxis={"title": {"text": title}, "rangemode": "tozero"},
        showlegend=len(series) > 1,
        shapes=[] if line is None else [_line(x=line)],
    )
    return _plain(go.Figure(traces, layout))


def heat_map(counts: Sequence[Sequence[int]], names: Sequence[str]) -> dict[str, Any]:
    """A confusion matrix: each row is coloured by the share that a column has of it.

    Args:
        counts: a row for each class of the labels.
        names: of the classes.
    """
    from plotly import graph_objects as go

    shares = [[count / total if (total := sum(row)) else 0.0 for count in row] for row in counts]
    places = list(range(len(names)))
    escaped = [plotly_text(name) for name in names]
    trace = go.Heatmap(
        z=shares,
        x=places,
        y=places,
        text=[list(map(str, row)) for row in counts],
        texttemplate="%{text}" if len(names) <= 20 else None,
        customdata=[[[right, named] for named in escaped] for right in escaped],
        hovertemplate="%{customdata[0]} named %{customdata[1]}: %{text} (%{z:.1%})<extra></extra>",
        colorscale=_SCALE,
        zmin=0,
        zmax=1,
        showscale=False,
        xgap=1,
        ygap=1,
    )
    ticks = {"tickvals": places, "ticktext": [plotly_text(axis_name(name)) for name in names], "showgrid": False}
    layout = go.Layout(
        xaxis=ticks,
        yaxis={**ticks, "autorange": "reversed"},
    )
    return _plain(go.Figure(trace, layout))


@final
@dataclass(frozen=True)
class Points:
    """Points of a plot, which may be joined by a line.

    Attributes:
        name: of the series.
        x: where each is.
        y: where each is.
        texts: what each says when it is pointed at, a line each.
        colour: of all of them.
        symbol: Plotly's name of their form; empty for a line without points.
        size: pixels of a point.
        joined: Plotly's name of how they are joined, such as `"linear"` or `"hv"`; empty for points alone.
        is_shown: whether they are there from the beginning; otherwise once their name is clicked.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    texts: Sequence[Sequence[str]]
    colour: str
    symbol: str = "circle"
    size: int = 8
    joined: str = ""
    is_shown: bool = True


def scatter(
    series: Sequence[Points],
    x_title: str,
    y_title: str,
    *,
    x_limit: float | None = None,
    y_limit: float | None = None,
    x_format: str = "",
) -> dict[str, Any]:
    """Points over two axes, with dashed lines for limits.

    Args:
        series: the points; those of the last lie on top.
        x_title: of the axis below.
        y_title: of the axis beside.
        x_limit: where a line is drawn across.
        y_limit: where a line is drawn along.
        x_format: how numbers below are written, in d3's words; by default as they are.
    """
    from plotly import graph_objects as go

    traces = [
        go.Scatter(
            x=list(points.x),
            y=list(points.y),
            name=plotly_text(points.name),
            mode="+".join(mode for mode, on in (("lines", points.joined), ("markers", points.symbol)) if on),
            marker={"color": points.colour, "symbol": points.symbol or "circle", "size": points.size},
            line={"color": points.colour, "width": 1.5, "shape": points.joined or "linear"},
            customdata=["<br>".join(map(plotly_text, lines)) for lines in points.texts],
            hovertemplate="%{customdata}<extra></extra>" if points.symbol else None,
            hoverinfo=None if points.symbol else "skip",
            visible=True if points.is_shown else "legendonly",
        )
        for points in series
    ]
    lines = [_line(**{axis: value}) for axis, value in (("x", x_limit), ("y", y_limit)) if value is not None]
    layout = go.Layout(
        xaxis={"title": {"text": plotly_text(x_title)}, "tickformat": x_format},
        yaxis={"title": {"text": plotly_text(y_title), "standoff": 12}},
        showlegend=len(series) > 1,
        shapes=lines,
    )
    return _plain(go.Figure(traces, layout))


def _line(**where: float) -> dict[str, Any]:
    """A dashed line across a plot, at an x or a y."""
    (axis, place), other = next(iter(where.items())), {"x": "y", "y": "x"}
    return {
        "type": "line",
        f"{axis}0": place,
        f"{axis}1": place,
        f"{other[axis]}0": 0,
        f"{other[axis]}1": 1,
        f"{other[axis]}ref": "paper",
        "line": {"color": RED, "width": 1.5, "dash": "dash"},
    }


def _repeated(colours: Sequence[Any]) -> Sequence[Any]:
    return [*colours] * math.ceil(64 / len(colours))


def _plain(figure: go.Figure) -> dict[str, Any]:
    """A figure as plain values, in the page's own look."""
    figure.update_layout(
        margin={"l": 8, "r": 16, "t": 12, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "traceorder": "normal"},
        hoverlabel={"align": "left"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        hovermode="closest",
        dragmode=False,
    )
    figure.update_xaxes(automargin=True, zeroline=False)
    figure.update_yaxes(automargin=True, zeroline=False)
    plain = figure.to_plotly_json()
    del plain["layout"]["template"]
    return plain
