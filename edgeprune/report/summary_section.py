"""The summary of a report on a model and its files: a row for each figure, a column for each file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from edgeprune.measure.score import direction_words
from edgeprune.report.model_figures import FileFigures, ModelFigures, NotMeasured
from edgeprune.report.page.content import Cell, Figure, Mark, PageTable, Section, amount, figure, share_of
from edgeprune.search.budget import amount_text
from edgeprune.targets import Target


def board_share(
    target: Target | None, name: str, title: str, values: Sequence[float | None]
) -> Iterator[tuple[str, list[Cell]]]:
    """How much of a board's memory files need: the row's name and a cell for each; nothing where that is unknown.

    Args:
        target: the board.
        name: `"flash"` or `"ram"`; of other figures there is nothing.
        title: the figure's name.
        values: bytes that each file needs; None where they were not measured.
    """
    memory = None if target is None else {"flash": target.flash_bytes, "ram": target.ram_bytes}.get(name)
    if target is not None and memory is not None:
        shares = [None if value is None else value / memory for value in values]
        cells = [figure(share, ".1%", "" if share is None or share <= 1 else "bad") for share in shares]
        yield f"{title}, share of the {amount_text(name, memory)} of {target.name}", cells


def summary_section(found: ModelFigures) -> Section:
    """The figures of the model and of each file, the limits, and the share of the board."""
    header = ("", "Keras", *(file.path.name for file in found.files))
    missing = [part.reason for file in found.files if isinstance(part := file.costs, NotMeasured)]
    missing += [scores.reason for scores in (found.scores, *(file.scores for file in found.files)) if scores.reason]
    note = " ".join(dict.fromkeys(missing))
    table = PageTable("The model and its files", header, tuple(_summary_rows(found)), note, sortable=False)
    return Section("summary", "Summary", (), (table,))


def _summary_rows(found: ModelFigures) -> Iterator[tuple[Cell, ...]]:
    files, limits = found.files, found.budget.limits if found.budget else {}
    for one in found.scores:
        title = f"{one.name} ({direction_words(one.higher_is_better)})"
        yield title, Figure(one.value, one.text), *[_score(file, one.name) for file in files]
    for place, output in enumerate(files[0].outputs):
        of = f" of {output.name}" if len(files[0].outputs) > 1 else ""
        if output.agreement is not None:
            yield f"Same class as Keras{of}", "", *[figure(file.outputs[place].agreement, ".2%") for file in files]
        title = f"Largest difference from Keras{of}"
        yield title, "", *[figure(file.outputs[place].largest_error, ".4g") for file in files]
    sizes = [(file, file.inspection.size) for file in files]
    yield "Size", "", *[amount("size", size.bytes, _mark(file, limits, "size")) for file, size in sizes]
    yield (
        "Size after gzip",
        "",
        *[amount("size", size.gzip_bytes, _mark(file, limits, "gzip_size")) for file, size in sizes],
    )
    estimated = any("latency_ms" in _costs(file) for file in files)
    marks: list[Mark] = ["" if estimated else _mark(file, limits, "latency_ms") for file in files]
    times = [amount("latency_ms", file.latency.milliseconds, mark) for file, mark in zip(files, marks, strict=True)]
    yield f"Time of a run{' on this machine' if estimated else ''}", "", *times
    if len(files) > 1:
        yield f"Time relative to {files[0].path.name}", "", *[figure(file.latency.ratio, ".2f") for file in files]
    yield "MACs", figure(found.model.macs, ",d"), *[figure(file.inspection.macs.total, ",d") for file in files]
    counts = [file.inspection.parameters for file in files]
    yield "Parameters", figure(found.model.parameters, ",d"), *[figure(count, ",d") for count in counts]
    zeros = [share_of(file.inspection.zeros, count) for file, count in zip(files, counts, strict=True)]
    yield "Zeros in the weights", figure(found.model.sparsity, ".1%"), *[figure(zero, ".1%") for zero in zeros]
    for name, title in (("latency_ms", "Time of a run, estimated by Vela"), ("flash", "Flash"), ("ram", "RAM")):
        if any(name in _costs(file) for file in files):
            values = [_costs(file).get(name) for file in files]
            marks = [_mark(file, limits, name) for file in files]
            yield title, "", *[amount(name, value, mark) for value, mark in zip(values, marks, strict=True)]
            yield from ((words, "", *cells) for words, cells in board_share(found.target, name, title, values))
    for name, limit in limits.items():
        yield f"{name} of {amount_text(name, limit)}", "", *[_holds(file, name) for file in files]


def _costs(file: FileFigures) -> dict[str, float]:
    return file.costs if isinstance(file.costs, dict) else {}


def _mark(file: FileFigures, limits: Mapping[str, float], name: str) -> Mark:
    """Whether a figure holds its limit, where it has one."""
    if f"max_{name}" not in limits:
        return ""
    return "bad" if any(one.limit == f"max_{name}" for one in file.exceeded) else "good"


def _holds(file: FileFigures, name: str) -> Figure:
    """A limit as a cell."""
    excess = next((one for one in file.exceeded if one.limit == name), None)
    if excess is None:
        return Figure(1, "holds", "good")
    known = not math.isnan(excess.by)
    return Figure(0, f"{amount_text(name, excess.by)} over" if known else "not measured", "bad")


def _score(file: FileFigures, name: str) -> Cell:
    return next((Figure(one.value, one.text) for one in file.scores if one.name == name), "")
