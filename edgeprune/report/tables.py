"""The table of formats, for a terminal and for a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.text_table import rich_table

if TYPE_CHECKING:
    from rich.table import Table

HEADER = ("File", "Accuracy", "Bytes", "Gzip'd", "Smaller", "ms", "Time", "Zeros", "Kept")
LEGEND = (
    "Smaller, Time: gzip'd size and latency (ms) relative to the dense float32 file. "
    "Zeros: in the kernels, counted in the file. Kept: share of the Keras model's zeros that are zero in the file."
)


@dataclass(frozen=True)
class FormatRow:
    """What was measured on one file.

    Attributes:
        name: the model and the number format, for example `"pruned int8"`.
        file: the file's name.
        accuracy: top-1 accuracy on the test images, 0 to 1.
        bytes: size of the file.
        gzip_bytes: its size after gzip.
        smaller: how many times smaller it is, gzip'd, than the dense float32 file, gzip'd.
        milliseconds: median time of one inference.
        time_ratio: its time relative to the dense float32 file.
        zeros: fraction of the kernels' values that are zero in the file.
        zeros_kept: fraction of the Keras model's zeros that are zero in the file; None if it has none.
        largest_error: largest difference of an output from the Keras model's.
        agreement: fraction of the test images for which file and Keras model name the same class.
        problems: what verification found wrong; empty if nothing.
    """

    name: str
    file: str
    accuracy: float
    bytes: int
    gzip_bytes: int
    smaller: float
    milliseconds: float
    time_ratio: float
    zeros: float
    zeros_kept: float | None
    largest_error: float
    agreement: float
    problems: tuple[str, ...]


def cells(row: FormatRow) -> tuple[str, ...]:
    """One row of the table as text, in the order of `HEADER`."""
    return (
        row.name,
        f"{row.accuracy:.1%}",
        f"{row.bytes:,}",
        f"{row.gzip_bytes:,}",
        f"{row.smaller:.1f}x",
        f"{row.milliseconds:.3f}",
        f"{row.time_ratio:.2f}",
        f"{row.zeros:.1%}",
        "-" if row.zeros_kept is None else f"{row.zeros_kept:.0%}",
    )


def formats_table(rows: Sequence[FormatRow], title: str) -> Table:
    """The table for a terminal, no wider than 80 columns.

    Args:
        rows: what was measured, one row for each file.
        title: what stands above it.

    Returns:
        A rich table.
    """
    styles = ["bold red" if row.problems else None for row in rows]
    return rich_table(HEADER, map(cells, rows), styles=styles, title=title, caption=LEGEND)


def summary(rows: Sequence[FormatRow]) -> str:
    """What the smallest file gained and lost against the first, and what is wrong with any, in words.

    Args:
        rows: what was measured, one row for each file.

    Returns:
        One line, and one for each problem.
    """
    first, best = rows[0], min(rows, key=lambda row: row.gzip_bytes)
    lines = [
        f"{best.name} against {first.name}: {best.smaller:.1f} times smaller gzip'd, "
        f"{best.time_ratio:.2f} of the time, {100 * (best.accuracy - first.accuracy):+.1f} points of accuracy."
    ]
    lines += [f"problem: {row.file}: {problem}" for row in rows for problem in row.problems]
    return "\n".join(lines)


def formats_markdown(rows: Sequence[FormatRow]) -> str:
    """The table as Markdown, for a README.

    Args:
        rows: what was measured, one row for each file.

    Returns:
        Lines of a Markdown table, without a line break at the end.
    """
    lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
