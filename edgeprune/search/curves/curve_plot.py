"""Sensitivity curves as a plot. It needs matplotlib, which comes with `pip install 'edgeprune[notebook]'`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_GREY = "#b8bec6"
_MOST_NAMES = 20


def plot_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    baseline: float,
    collapse: Mapping[str, float | None],
    ax: Axes | None = None,
) -> Axes:
    """Plot scores over levels, with a cross where each curve collapses.

    Args:
        curves: the name of each curve to its levels and scores.
        baseline: the score at level 0.
        collapse: the name of each curve to the level that is crossed.
        ax: matplotlib axes to draw on; new ones where left out.

    Returns:
        The axes, without labels.

    Raises:
        ImportError: matplotlib is not installed.
    """
    ax = ax or _new_axes()
    for number, (name, (levels, scores)) in enumerate(curves.items()):
        colour: Any = f"C{number % 10}"
        ax.plot([0.0, *levels], [baseline, *scores], "-o", color=colour, markersize=3, linewidth=1.2, label=name)
        if (level := collapse[name]) is not None:
            ax.plot([level], [scores[levels.index(level)]], "x", color=colour, markersize=9)
    ax.axhline(baseline, color=_GREY, linewidth=1, linestyle="--", zorder=0)
    ax.xaxis.set_major_formatter(lambda value, _: f"{round(100 * value, 2):g}%")
    if len(curves) <= _MOST_NAMES:
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _new_axes() -> Axes:
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'edgeprune[notebook]'") from error
    return matplotlib.pyplot.subplots(figsize=(7, 4), layout="constrained")[1]
