"""Plots for notebooks: a schedule, sparsity, groups of channels, widths, memory, size and accuracy of each file.

They need matplotlib, which comes with `pip install 'edgeprune[notebook]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edgeprune.channels.graph.coupling import Slot
    from edgeprune.channels.plan.channel_plan import ChannelPlan
    from edgeprune.measure.memory import ActivationMemory
    from edgeprune.report.tables import FormatRow
    from edgeprune.sparsity.report import SparsityReport
    from edgeprune.sparsity.schedules import PruningSchedule

BLUE, GREY, ORANGE = "#3465a4", "#b8bec6", "#d9822b"


def plot_schedule(schedule: PruningSchedule, steps: int, ax: Axes | None = None) -> Axes:
    """Plot the sparsity a schedule asks for over the steps of a training, as the masks follow it.

    Args:
        schedule: a `PruningSchedule` whose `end_step` is known.
        steps: number of training steps.
        ax: matplotlib axes to draw on; new ones where left out.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `steps` is below 1.

    Example:
        >>> axes = plot_schedule(ep.PolynomialDecay(0.0, 0.8, 0, 500, frequency=20), 790)
        >>> round(float(axes.lines[0].get_ydata()[-1]), 3)
        0.8
    """
    from edgeprune.sparsity.schedules import is_due, sparsity_at

    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}.")
    ax = ax or _new_axes(6, 3)
    reached, sparsity = [], 0.0
    for step in range(1, steps + 1):
        if is_due(schedule, step):
            sparsity = sparsity_at(schedule, step)
        reached.append(sparsity)
    ax.step(range(1, steps + 1), reached, where="post", color=BLUE)
    ax.set(xlabel="training step", ylabel="sparsity", ylim=(0, 1), title="Pruning schedule")
    ax.yaxis.set_major_formatter(_percent())
    return ax


def plot_sparsity(report: SparsityReport, ax: Axes | None = None) -> Axes:
    """Plot the sparsity of every prunable weight as bars, with the number of its values.

    Args:
        report: what `edgeprune.sparsity_report` returned.
        ax: matplotlib axes to draw on; new ones where left out.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the model has no prunable weight.

    Example:
        >>> axes = plot_sparsity(ep.sparsity_report(model))
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['stem/kernel', 'conv/kernel', 'head/kernel']
    """
    rows = [row for row in report.rows if row.weight]
    if not rows:
        raise ValueError(f"{report.model!r} has no prunable weights to plot.")
    ax = ax or _new_axes(6, 0.6 + 0.3 * len(rows))
    bars = ax.barh([f"{row.layer}/{row.weight}" for row in rows], [row.sparsity for row in rows], color=BLUE)
    ax.bar_label(bars, [f"{row.sparsity:.0%} of {row.size:,}" for row in rows], padding=4)
    ax.set(xlabel="zeros", xlim=(0, 1.3), title=f"Sparsity per layer, {report.sparsity:.1%} in all")
    ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    ax.xaxis.set_major_formatter(_percent())
    ax.invert_yaxis()
    return ax


def plot_formats(rows: Sequence[FormatRow], axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Plot size and accuracy of every file, side by side.

    Args:
        rows: what the demo measured, one row for each file.
        axes: two matplotlib axes to draw on; new ones where left out.

    Returns:
        The two axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no rows.

    Example:
        >>> plot_formats(result.rows)  # doctest: +SKIP
    """
    if not rows:
        raise ValueError("There are no rows to plot.")
    if axes is None:
        _, axes = _pyplot().subplots(1, 2, figsize=(10, 0.9 + 0.4 * len(rows)), sharey=True, layout="constrained")
    size, accuracy = axes
    names = [row.name for row in rows]
    size.barh(names, [row.bytes / 1000 for row in rows], color=GREY, label="as it is")
    bars = size.barh(names, [row.gzip_bytes / 1000 for row in rows], height=0.45, color=BLUE, label="gzip'd")
    size.bar_label(bars, [f"{row.gzip_bytes / 1000:,.0f} kB" for row in rows], padding=4)
    size.set(xlabel="kB", title="Size of the file")
    size.margins(x=0.15)
    size.legend(loc="lower right")
    size.invert_yaxis()
    dots = [row.accuracy for row in rows]
    accuracy.plot(dots, names, "o", color=ORANGE)
    for row in rows:
        accuracy.annotate(
            f"{row.accuracy:.1%}", (row.accuracy, row.name), xytext=(8, 0), textcoords="offset points", va="center"
        )
    # A window wide enough that a tenth of a point does not look like a cliff.
    middle, half = (min(dots) + max(dots)) / 2, max(0.02, (max(dots) - min(dots)) * 0.8)
    accuracy.set(xlim=(middle - half, middle + half * 1.3), title="Accuracy on the test images")
    accuracy.xaxis.set_major_formatter(_percent())
    accuracy.grid(axis="x", alpha=0.3)
    return axes


def plot_groups(plan: ChannelPlan, ax: Axes | None = None) -> Axes:
    """Plot which layers hang together: a column for each group of channels, a row for each layer it reaches.

    A full square makes the group's channels, a light one is merely indexed by them (a batch norm, a depthwise
    convolution), a ring consumes them. Groups that are frozen are grey.

    Args:
        plan: what `edgeprune.plan_channels` returned.
        ax: matplotlib axes to draw on; new ones where left out.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: the model has no groups.

    Example:
        >>> axes = plot_groups(ep.plan_channels(model, pruning_ratio=0.5))
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['stem', 'conv', 'head']
    """
    groups, names = plan.groups, plan.graph.names
    if not groups:
        raise ValueError(f"{plan.model.name!r} has no groups of channels to plot.")
    touched = {id(slot.layer) for group in groups for slot in group.slots}
    rows = {layer: place for place, layer in enumerate(layer for layer in names if layer in touched)}
    ax = ax or _new_axes(2.5 + 0.45 * len(groups), 1 + 0.24 * len(rows))
    for column, group in enumerate(groups):
        colour = GREY if group.frozen else f"C{column % 10}"
        places = sorted(rows[id(slot.layer)] for slot in group.slots)
        ax.plot([column, column], [places[0], places[-1]], color=colour, linewidth=1, alpha=0.5, zorder=1)
        for place, kind in sorted({(rows[id(slot.layer)], _kind(slot)) for slot in group.slots}):
            looks: dict[str, Any] = {"marker": "o", "facecolor": "none"}
            if kind != "reads":
                looks = {"marker": "s", "facecolor": colour}
            faint = 0.35 if kind == "indexed" else 1.0
            ax.scatter(column, place, s=46, edgecolor=colour, alpha=faint, zorder=2, **looks)
    ax.set_yticks(range(len(rows)), [names[layer] for layer in rows], fontsize=8)
    labels = [f"{group.name} ({group.size})" for group in groups]
    ax.set_xticks(range(len(groups)), labels, rotation=45, ha="left", fontsize=8)
    ax.xaxis.tick_top()
    ax.invert_yaxis()
    ax.grid(axis="y", alpha=0.25)
    ax.set_title("Coupled channels: squares produce them, rings consume them", fontsize=10)
    return ax


def _kind(slot: Slot) -> str:
    return "reads" if slot.reads else "makes" if slot.makes else "indexed"


def plot_widths(plan: ChannelPlan, ax: Axes | None = None) -> Axes:
    """Plot the channels of each group before and after a plan.

    Args:
        plan: what `edgeprune.plan_channels` returned.
        ax: matplotlib axes to draw on; new ones where left out.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: nothing can be removed from the model.

    Example:
        >>> axes = plot_widths(ep.plan_channels(model, pruning_ratio=0.5))
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['stem', 'conv']
    """
    rows = plan.planned
    if not rows:
        raise ValueError(f"{plan.model.name!r} has no channels that can be removed.")
    ax = ax or _new_axes(6, 0.9 + 0.3 * len(rows))
    names = [row.name for row in rows]
    bars = ax.barh(names, [row.before for row in rows], color=GREY)
    ax.barh(names, [row.after for row in rows], height=0.5, color=BLUE)
    ax.bar_label(bars, [f"{row.after:,} of {row.before:,}" for row in rows], padding=4, fontsize=8)
    ax.set(
        xlabel="channels",
        title=f"Channels left: {plan.macs.kept:.0%} of the MACs, {plan.params.kept:.0%} of the parameters",
    )
    ax.margins(x=0.15)
    ax.invert_yaxis()
    return ax


def plot_memory(memory: ActivationMemory, ax: Axes | None = None) -> Axes:
    """Plot the activations that are alive while each layer runs, and what of them the layer makes.

    Args:
        memory: what `edgeprune.activation_memory` returned.
        ax: matplotlib axes to draw on; new ones where left out.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.

    Example:
        >>> axes = plot_memory(ep.activation_memory(model))
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['stem', 'conv', 'pool', 'head']
    """
    ax = ax or _new_axes(6, 0.9 + 0.24 * len(memory.layers))
    places = range(len(memory.layers))  # a layer that is called twice has two rows of the same name
    colours = [ORANGE if row.bytes == memory.peak else GREY for row in memory.layers]
    alive = ax.barh(places, [row.bytes / 1000 for row in memory.layers], color=colours)
    ax.barh(places, [row.output_bytes / 1000 for row in memory.layers], height=0.45, color=BLUE, label="made by it")
    ax.set_yticks(places, [row.layer for row in memory.layers], fontsize=8)
    ax.bar_label(alive, [f"{row.bytes / 1000:,.1f}" for row in memory.layers], padding=4, fontsize=8)
    ax.set(xlabel="kB alive while the layer runs", title=f"Activations in {memory.dtype}: {memory.layer} sets the RAM")
    ax.margins(x=0.15)
    ax.invert_yaxis()
    ax.legend(loc="lower right")
    return ax


def plot_decibels(
    layers: Sequence[str], decibels: Sequence[float | None], title: str, limit: float = 10.0, ax: Axes | None = None
) -> Axes:
    """Plot how far each layer's signal lies above the noise, those below a limit in another colour.

    Args:
        layers: names of layers.
        decibels: for each its signal-to-noise ratio in dB; None where there is no noise.
        title: of the plot.
        limit: dB below which a layer is broken.
        ax: matplotlib axes to draw on; new ones where left out.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there are no layers.

    Example:
        >>> axes = plot_decibels(["stem", "head"], [38.0, 7.5], "int8")
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['stem', 'head']
    """
    if not layers:
        raise ValueError("There are no layers to plot.")
    ax = ax or _new_axes(6, 0.9 + 0.24 * len(layers))
    places = range(len(layers))  # a layer that is called twice has two rows of the same name
    longest = max([value for value in decibels if value is not None], default=6 * limit)
    values = [longest if value is None else value for value in decibels]
    bars = ax.barh(places, values, color=[ORANGE if value < limit else BLUE for value in values])
    ax.bar_label(bars, ["equal" if value is None else f"{value:.1f}" for value in decibels], padding=4, fontsize=8)
    ax.axvline(limit, color=GREY, linewidth=1)
    ax.set_yticks(places, layers, fontsize=8)
    ax.set(xlabel="signal to noise (dB)", title=title)
    ax.margins(x=0.12)
    ax.invert_yaxis()
    return ax


def _new_axes(width: float, height: float) -> Axes:
    return _pyplot().subplots(figsize=(width, height), layout="constrained")[1]


def _pyplot() -> ModuleType:
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError("Plots need matplotlib: pip install 'edgeprune[notebook]'") from error
    return matplotlib.pyplot


def _percent() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{round(100 * value, 2):g}%")
