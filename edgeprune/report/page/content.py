"""What is on a report's page, as data: sections of tables and plots, whose every figure has its value and its text.

A cell is words, or a `Figure`: a measured value and how it is written. Nothing is computed after this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

from edgeprune.search.budget import amount_text

Mark: TypeAlias = Literal["", "good", "bad", "best"]


@final
@dataclass(frozen=True)
class Figure:
    """A measured value with its text.

    Attributes:
        value: the value, as it was measured; what a table is sorted by.
        text: how it is written.
        mark: whether it stands out.
    """

    value: float
    text: str
    mark: Mark = ""


Cell: TypeAlias = "Figure | str"


@final
@dataclass(frozen=True)
class PageTable:
    """A table.

    Attributes:
        caption: what it shows.
        header: the names of its columns.
        rows: as many cells in each. The first is the row's name.
        note: a sentence below it.
        folded: whether it is closed until it is asked for, as one beside a plot.
        sortable: whether its columns can be sorted by; not where each row has another unit.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    folded: bool = False
    sortable: bool = True
    kind: Literal["table"] = "table"


@final
@dataclass(frozen=True)
class Plot:
    """A plot, with the table of what it shows.

    Attributes:
        label: what it shows, in a sentence, for those who do not see it.
        figure: its traces and its layout, as Plotly accepts them.
        height: pixels.
        table: its points; None where a table of the section has them.
    """

    label: str
    figure: Mapping[str, Any]
    height: int
    table: PageTable | None = None
    kind: Literal["plot"] = "plot"


@final
@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: its name in links.
        title: its heading.
        paragraphs: sentences below the heading.
        parts: its tables and plots.
    """

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    parts: tuple[PageTable | Plot, ...] = ()


@final
@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: its heading.
        subtitle: a line below it.
        verdict: what it comes to, in a sentence; empty where nothing was decided.
        verdict_mark: whether that is good or bad.
        sections: its parts, the summary first.
        figures: all that was measured, as plain values, which the file holds as JSON too.
    """

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    verdict: str = ""
    verdict_mark: Mark = ""


def figure(value: float | None, pattern: str = ",.4g", mark: Mark = "") -> Cell:
    """A value by a format specification; an empty cell where there is none.

    Example:
        >>> figure(0.8412, ".1%").text
        '84.1%'
    """
    if value is None or math.isnan(value):
        return ""
    return Figure(value, format(value, pattern), mark)


def amount(name: str, value: float | None, mark: Mark = "") -> Cell:
    """Bytes, milliseconds or points by the limit that they are held against, as `amount_text` writes them."""
    return "" if value is None or math.isnan(value) else Figure(value, amount_text(name, value), mark)


def sizes_text(shape: tuple[int | None, ...]) -> str:
    """A shape in one word.

    Example:
        >>> sizes_text((None, 28, 28, 1))
        '?×28×28×1'
    """
    return "×".join("?" if size is None or size < 0 else str(size) for size in shape) or "one value"


def share_of(part: float, whole: float) -> float:
    """A part of a whole; NaN, which is an empty cell, of nothing."""
    return part / whole if whole else math.nan
