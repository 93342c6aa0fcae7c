"""The page of a report on a Keras model and its files: what `measure_model` found, section by section."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune.measure.class_scores import ClassScores
from edgeprune.report.file_errors import BROKEN, QuantizationErrorReport
from edgeprune.report.inspection import Inspection
from edgeprune.report.model_figures import MOST_CLASSES, FileFigures, ModelFigures, NotMeasured
from edgeprune.report.page.content import (
    Cell,
    Page,
    PageTable,
    Plot,
    Section,
    figure,
    share_of,
    sizes_text,
)
from edgeprune.report.page.figures import BLUE, GREY, ORANGE, heat_map, row_bars, row_height
from edgeprune.report.summary_section import summary_section

_MOST_MISTAKES = 20
_ALONE = (
    "Each operator is timed in a file of its own. The times do not add up to the file's: an interpreter fuses some "
    "operators, and calling each costs time."
)


def model_page(found: ModelFigures, title: str) -> Page:
    """Put what was measured on a page."""
    board = "" if found.target is None else f", for {found.target.name}"
    names = ", ".join(file.path.name for file in found.files)
    return Page(
        title=title,
        subtitle=f"{names} beside the Keras model, on {found.samples:,} samples{board}",
        sections=(summary_section(found), *_details(found), _frozen(found), environment_section(found.environment)),
        figures=found.to_dict(),
        **_verdict(found),
    )


def file_sections(found: ModelFigures, words: tuple[str, ...] = ()) -> Iterator[Section]:
    """What was measured on files, after some words, for the page of a search, which has a summary of its own."""
    title = f"The file beside the original, on {found.samples:,} samples"
    yield dataclasses.replace(summary_section(found), key="file", title=title, paragraphs=words)
    yield from _details(found)


def _details(found: ModelFigures) -> Iterator[Section]:
    for make in (_classes, _sizes, _latency, _errors, _layers):
        yield from make(found)


def _verdict(found: ModelFigures) -> dict[str, Any]:
    if found.budget is None:
        return {}
    broken = {file.path.name: file.exceeded for file in found.files if file.exceeded}
    if not broken:
        return {"verdict": "Every limit holds.", "verdict_mark": "good"}
    said = (f"{name}: {'; '.join(map(str, limits))}." for name, limits in broken.items())
    return {"verdict": f"Limits that do not hold. {' '.join(said)}", "verdict_mark": "bad"}


def _classes(found: ModelFigures) -> Iterator[Section]:
    """Scores of each class, and what is mistaken for what."""
    parts: list[PageTable | Plot] = []
    for output, before in found.classes.items():
        names = _class_names(found, len(before.counts))
        of = f" of {output}" if len(found.classes) > 1 else ""
        after = [(file.path.name, file.classes[output]) for file in found.files if output in file.classes]
        header = ["Class", "Samples", "Recall, Keras", *(f"Recall, {name}" for name, _ in after)]
        header += ["Precision, Keras", *(f"Precision, {name}" for name, _ in after)]
        columns = [one.recall for one in (before, *(own for _, own in after))]
        columns += [one.precision for one in (before, *(own for _, own in after))]
        rows = tuple(
            (
                name,
                figure(int(before.labelled[place]), ",d"),
                *(figure(float(column[place]), ".1%") for column in columns),
            )
            for place, name in enumerate(names)
        )
        many = len(names) > MOST_CLASSES
        parts.append(PageTable(f"Recall and precision of each class{of}", tuple(header), rows, folded=many))
        if many:
            parts.append(_mistakes(f"The most frequent mistakes{of}", {"Keras": before, **dict(after)}, names))
        else:
            for name, own in (("Keras", before), *after):
                parts.append(
                    _confusion(
                        f"{name}: samples of each class{of} (rows) by what they were named (columns)",
                        own.counts.tolist(),
                        names,
                    )
                )
    if parts:
        yield Section("classes", "Scores of each class", (), tuple(parts))


def _mistakes(caption: str, scores: Mapping[str, ClassScores], names: Sequence[str]) -> PageTable:
    """The pairs of classes that one of several models mistakes most often, instead of a large matrix."""
    counts = {name: one.counts * (1 - np.eye(len(names), dtype=int)) for name, one in scores.items()}
    worst = np.max(list(counts.values()), axis=0)
    order = np.argsort(-worst, axis=None, kind="stable")[:_MOST_MISTAKES]
    places = [divmod(int(place), len(names)) for place in order if worst.flat[place]]
    rows = tuple(
        (names[right], names[named], *(figure(int(one[right, named]), ",d") for one in counts.values()))
        for right, named in places
    )
    return PageTable(caption, ("Class", "Named", *counts), rows)


def _confusion(label: str, counts: list[list[int]], names: Sequence[str]) -> Plot:
    rows = tuple((name, *(figure(count, ",d") for count in row)) for name, row in zip(names, counts, strict=True))
    table = PageTable(f"{label}, as a table", ("Class", *names), rows, folded=True)
    plot = heat_map(counts, names)
    return Plot(label, plot, max(260, 120 + 26 * len(names)), table)


def _class_names(found: ModelFigures, count: int) -> Sequence[str]:
    if found.class_names is not None and len(found.class_names) == count:
        return found.class_names
    return [str(number) for number in range(count)]


def _sizes(found: ModelFigures) -> Iterator[Section]:
    names = [file.path.name for file in found.files]
    sizes = [file.inspection.size for file in found.files]
    series = {"as it is": [one.bytes / 1000 for one in sizes], "after gzip": [one.gzip_bytes / 1000 for one in sizes]}
    texts = {
        "as it is": [f"{one.bytes:,} bytes" for one in sizes],
        "after gzip": [f"{one.gzip_bytes:,} bytes" for one in sizes],
    }
    plot = row_bars(names, series, texts, "kB", colours=(GREY, BLUE), overlay=True)
    rows = tuple(
        (name, figure(one.bytes, ",d"), figure(one.gzip_bytes, ",d")) for name, one in zip(names, sizes, strict=True)
    )
    table = PageTable("The sizes as a table", ("File", "Bytes", "After gzip"), rows, folded=True)
    weights = [_weights(file) for file in found.files]
    yield Section("size", "Size", (), (Plot("Size of each file", plot, row_height(len(names)), table), *weights))


def _weights(file: FileFigures) -> PageTable:
    rows = tuple(
        (
            tensor.name,
            sizes_text(tensor.shape),
            tensor.dtype,
            figure(tensor.bytes, ",d"),
            figure(tensor.zeros, ",d"),
            figure(tensor.sparsity, ".1%"),
        )
        for tensor in file.inspection.weights
    )
    header = ("Tensor", "Shape", "Type", "Bytes", "Zeros", "Share of zeros")
    return PageTable(f"Weights and zeros in {file.path.name}", header, rows, folded=True)


def _latency(found: ModelFigures) -> Iterator[Section]:
    header = ("File", "Median ms", "Interquartile range", "Relative to the first", "Interquartile range of that")
    rows = tuple(
        (name, *(figure(value, ".4f") for value in (row.milliseconds, row.spread, row.ratio, row.ratio_spread)))
        for name, row in zip([file.path.name for file in found.files], found.timed.rows, strict=True)
    )
    timed, machine = found.timed, found.timed.machine
    words = (
        f"{timed.num_runs} runs in turns on {machine.cpu} with {machine.runtime}, {timed.num_threads} "
        f"thread{'s' if timed.num_threads > 1 else ''}. Another processor ranks files its own way."
    )
    parts: list[PageTable | Plot] = [PageTable("Time of a run", header, rows)]
    paragraphs = [words, _ALONE]
    for file in found.files:
        if isinstance(file.operators, NotMeasured):
            paragraphs.append(f"The operators of {file.path.name} were not timed: {file.operators.reason}")
        else:
            parts += _operators(file)
    yield Section("latency", "Time and memory of each operator", tuple(paragraphs), tuple(parts))


def _operators(file: FileFigures) -> Iterator[Plot]:
    assert isinstance(file.operators, tuple)
    costs = file.operators
    names = [" + ".join(layers) or row.operator for row, layers in zip(costs, file.layers, strict=True)]
    rows = tuple(
        (
            row.operator,
            ", ".join(layers),
            sizes_text(row.shape),
            row.dtype,
            figure(row.milliseconds, ".4f"),
            figure(row.weight_bytes, ",d"),
            figure(row.output_bytes, ",d"),
            figure(row.alive_bytes, ",d"),
        )
        for row, layers in zip(costs, file.layers, strict=True)
    )
    header = ("Operator", "Layers", "Output", "Type", "ms alone", "Weight bytes", "Output bytes", "Bytes alive")
    table = PageTable(f"The operators of {file.path.name}", header, rows, folded=True)
    times = {"alone": [row.milliseconds for row in costs]}
    texts = {"alone": [f"{row.operator}, {row.milliseconds} ms" for row in costs]}
    yield Plot(
        f"{file.path.name}: milliseconds of each operator alone",
        row_bars(names, times, texts, "ms"),
        row_height(len(names)),
        table,
    )
    alive = {
        "alive while it runs": [row.alive_bytes for row in costs],
        "what it computes": [row.output_bytes for row in costs],
    }
    labels = {name: [f"{value:,} bytes" for value in values] for name, values in alive.items()}
    plot = row_bars(names, alive, labels, "bytes", colours=(GREY, BLUE), overlay=True)
    yield Plot(f"{file.path.name}: bytes of activations at each operator", plot, row_height(len(names)))


def _errors(found: ModelFigures) -> Iterator[Section]:
    parts: list[Plot | PageTable] = []
    paragraphs: list[str] = []
    for file in found.files:
        if isinstance(file.errors, NotMeasured):
            paragraphs.append(f"{file.path.name} could not be compared layer by layer: {file.errors.reason}")
        elif file.errors is not None:
            parts.append(_error_plot(file.path.name, file.errors))
    if parts or paragraphs:
        words = (
            f"Each layer's output in the file beside the Keras model's, as the ratio of signal to noise. In int8 about "
            f"35 to 45 dB are usual, each 6 dB less are a bit lost; below {BROKEN:g} dB a layer is broken."
        )
        yield Section("quantization", "Quantization error of each layer", (words, *paragraphs), tuple(parts))


def _error_plot(name: str, errors: QuantizationErrorReport) -> Plot:
    header = ("Layer", "Class", "Operator", "Type", "dB", "Bias", "Mean error", "Largest", "Range used", "Outside")
    rows = tuple(
        (
            row.layer,
            row.kind,
            row.operator,
            row.dtype,
            "equal" if row.signal_to_noise is None else figure(row.signal_to_noise, ".1f"),
            figure(row.bias, ".3f"),
            figure(row.mean_error, ".3g"),
            figure(row.largest_error, ".3g"),
            figure(row.range_used, ".0%"),
            figure(row.saturated, ".2%"),
        )
        for row in errors.layers
    )
    table = PageTable(f"The errors of {name} as a table", header, rows, folded=True)
    decibels = [row.signal_to_noise for row in errors.layers]
    longest = max((value for value in decibels if value is not None), default=6 * BROKEN)
    bars = {"signal to noise": [longest if value is None else value for value in decibels]}
    texts = {"signal to noise": ["equal" if value is None else f"{value:.1f} dB" for value in decibels]}
    colours = [ORANGE if value is not None and value < BROKEN else BLUE for value in decibels]
    plot = row_bars([row.layer for row in errors.layers], bars, texts, "dB", colours=(colours,), line=BROKEN)
    label = f"{name}: signal to noise of each layer, on {errors.samples} samples"
    return Plot(label, plot, row_height(len(decibels)), table)


def _layers(found: ModelFigures) -> Iterator[Section]:
    after = {} if found.smaller is None else {row.name: row for row in found.smaller.layers}
    header = ["Layer", "Class", "Output", "MACs", "Parameters", "Zeros"]
    if after:
        header[3:3] = ["Output, smaller"]
        header += ["MACs, smaller", "Parameters, smaller"]
    rows = []
    for row in found.model.layers:
        cells: list[Cell] = [row.name, row.type, _shapes(row.output_shapes)]
        smaller = after.get(row.name)
        if after:
            cells.append("" if smaller is None else _shapes(smaller.output_shapes))
        cells += [
            figure(row.macs, ",d"),
            figure(row.parameters, ",d"),
            figure(share_of(row.zeros, row.prunable), ".1%"),
        ]
        if after:
            cells += ["", ""] if smaller is None else [figure(smaller.macs, ",d"), figure(smaller.parameters, ",d")]
        rows.append(tuple(cells))
    parts: list[PageTable | Plot] = []
    if found.smaller is not None:
        left = {group.name: group.channels for group in found.smaller.groups}
        cut = [group for group in found.model.groups if group.frozen is None and group.name in left]
        parts += width_plot([(group.name, group.channels, left[group.name]) for group in cut])
    parts.append(PageTable("The model layer by layer", tuple(header), tuple(rows)))
    if found.model.memory is not None:
        parts.append(_memory(found.model))
    words = () if not found.model.memory_unknown else (f"Memory of the layers: unknown, {found.model.memory_unknown}",)
    yield Section("layers", "Layers", words, tuple(parts))


def width_plot(groups: Sequence[tuple[str, int, int]]) -> Iterator[Plot]:
    """The channels of groups before and after, by name; none where there are no groups."""
    if groups:
        names, *counts = zip(*groups, strict=True)
        series = dict(zip(("before", "after"), counts, strict=True))
        texts = {name: [f"{count:,} channels" for count in values] for name, values in series.items()}
        plot = row_bars(names, series, texts, "channels", colours=(GREY, BLUE), overlay=True)
        rows = tuple((name, figure(first, ",d"), figure(last, ",d")) for name, first, last in groups)
        table = PageTable("The widths as a table", ("Group", "Before", "After"), rows, folded=True)
        yield Plot("Channels of each group before and after", plot, row_height(len(names)), table)


def _memory(model: Inspection) -> PageTable:
    memory = model.memory
    assert memory is not None
    rows = tuple(
        (
            row.layer,
            row.kind,
            figure(row.output_bytes, ",d"),
            figure(row.bytes, ",d", "best" if row.bytes == memory.peak else ""),
        )
        for row in memory.layers
    )
    return PageTable(
        f"Activations of the Keras model in {memory.dtype}",
        ("Layer", "Class", "Bytes it makes", "Bytes alive"),
        rows,
        note=f"The peak is {memory.peak:,} bytes, at {memory.layer}; the arena is estimated at {memory.arena:,} bytes.",
        folded=True,
    )


def _frozen(found: ModelFigures) -> Section:
    if found.model.not_followed:
        words = f"The model's graph cannot be followed: {found.model.not_followed}"
        return Section("frozen", "What is frozen", (words,))
    return frozen_section(found.model.frozen)


def frozen_section(frozen: Mapping[str, str]) -> Section:
    """Which channels cannot be removed, and why, by the name of the group or layer."""
    if not frozen:
        return Section("frozen", "What is frozen", ("Nothing: every group of channels can be cut.",))
    words = "These keep all their channels when channels are removed."
    table = PageTable("Groups and layers that are frozen", ("Name", "Why"), tuple(frozen.items()))
    return Section("frozen", "What is frozen", (words,), (table,))


def environment_section(environment: Mapping[str, str]) -> Section:
    """The machine and the versions that figures were measured with."""
    table = PageTable("What it was measured with", ("", ""), tuple(environment.items()), sortable=False)
    return Section("environment", "Environment", (), (table,))


def _shapes(shapes: Sequence[tuple[int | None, ...]]) -> str:
    return ", ".join(sizes_text(shape[1:]) for shape in shapes)
