"""Tables as text: the one way in which reports and the command line print rows of figures.

In a terminal a table is as wide as the terminal allows and long cells are folded, so that nothing is cut. Elsewhere
each row is one line, however long, for grep and other programs.
"""

from __future__ import annotations

import copy
import io
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_UNLIMITED = 100_000


def text_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Iterable[int] = (0,),
    below: Collection[int] = (),
) -> str:
    """Lay rows out in columns.

    Args:
        header: the columns' names.
        rows: the cells of each row.
        left: numbers of the columns of words, which are aligned to the left; figures are aligned to the right.
        below: numbers of the columns that stand below the others where the terminal is too narrow for all.

    Returns:
        The lines, as wide as the terminal that stdout is; one line a row where it is none.

    Example:
        >>> print(text_table(("layer", "MACs"), [("stem", "1,728"), ("head", "64")]))
        layer   MACs
        stem   1,728
        head      64
    """
    rows, left = list(rows), set(left)
    whole, width = rich_table(header, rows, left=left), terminal_width()
    if not (below and width and _natural_width(whole) > width):
        return text_of(whole)
    beside = [number for number in range(len(header)) if number not in below]
    cells = [[row[number] for number in beside] for row in (header, *rows)]
    table = rich_table(cells[0], cells[1:], left=[place for place, number in enumerate(beside) if number in left])
    first, *lines = text_of(table, width=_UNLIMITED).splitlines()
    details = (", ".join(filter(None, (row[number] for number in below))) for row in rows)
    fold_text = (textwrap.fill(text, width, initial_indent="    ", subsequent_indent="    ") for text in details)
    return "\n".join([first, *(f"{line}\n{text}" for line, text in zip(lines, fold_text, strict=True))])


def _natural_width(table: Table) -> int:
    return max(map(len, text_of(table, width=_UNLIMITED).splitlines()))


def rich_table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: Iterable[int] = (0,),
    styles: Iterable[str | None] = (),
    title: str = "",
    caption: str = "",
) -> Table:
    """Lay rows out in columns, as a rich table.

    Args:
        header: the columns' names.
        rows: the cells of each row.
        left: numbers of the columns of words, which are aligned to the left.
        styles: rich's style of each row, None for a plain one.
        title: a line above.
        caption: a sentence or two below.

    Returns:
        A table without a frame, whose cells are folded where they do not fit.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title) if title else None,
        title_justify="left",
        caption=Text(caption) if caption else None,
        caption_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    words = set(left)
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="left" if number in words else "right", overflow="fold")
    rest = iter(styles)
    for row in rows:
        table.add_row(*map(Text, row), style=next(rest, None))
    return table


def text_of(table: Table, *, colour: bool = False, width: int | None = None) -> str:
    """A table as lines of text, without blanks at the end of a line.

    Args:
        table: a rich table.
        colour: whether to colour them where stdout is a terminal that shows colours.
        width: how wide it may be; left out, as wide as the terminal.

    Returns:
        The lines, as wide as the terminal that stdout is; one line a row where it is none.
    """
    from rich.console import Console

    width = width or terminal_width()
    text = io.StringIO()
    coloured = {"force_terminal": True} if colour and width else {"color_system": None}
    # In a notebook rich would show the table at once and return nothing.
    console = Console(file=text, width=width or _UNLIMITED, legacy_windows=False, force_jupyter=False, **coloured)
    # Title and caption apart: rich would make them as narrow as the columns.
    columns = copy.copy(table)
    columns.title = columns.caption = None
    for part in filter(None, (table.title, columns, table.caption)):
        console.print(part)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def fold_text(text: str) -> str:
    """Text whose lines are folded between words where they are wider than the terminal; elsewhere as it is.

    Args:
        text: one or more lines.

    Returns:
        The lines; what is folded continues two columns further in. A word, such as a path, is not split.

    Example:
        >>> fold_text("wrote model.tflite")
        'wrote model.tflite'
    """
    width = terminal_width()
    return text if width is None else "\n".join(_folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    indent = line[: len(line) - len(line.lstrip())] + "  "
    return textwrap.fill(
        line,
        width,
        subsequent_indent=indent,
        replace_whitespace=False,
        break_long_words=False,
        break_on_hyphens=False,
    )


def terminal_width() -> int | None:
    """The columns of the terminal that stdout is; None where it is none."""
    try:
        if not sys.stdout.isatty():
            return None
        return shutil.get_terminal_size().columns if os.environ.get("COLUMNS") else os.get_terminal_size(1).columns
    except (AttributeError, OSError, ValueError):  # replaced by an object that is no file, or closed
        return None
