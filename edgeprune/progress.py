"""Progress of work that takes over a second: a bar where the steps are known, a spinner where not.

Both are drawn on stderr, in a terminal or a notebook, and are gone when the work is done. Where the command line's
stderr is a file or a pipe, each stage is one line instead. When two are asked for at once, the outer one is shown.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_T = TypeVar("_T")

DELAY_SECONDS = 1.0
_drawing = threading.Lock()
_lines = ContextVar("lines", default=False)


def track(iterable: Iterable[_T], description: str, total: int | None = None, *, verbose: bool = True) -> Iterator[_T]:
    """Iterate, drawing a progress bar once the work has taken over a second.

    Args:
        iterable: what to iterate over.
        description: a few words shown before the bar.
        total: the number of steps, where `len(iterable)` is unknown.
        verbose: whether to draw it.

    Yields:
        The items of `iterable`.

    Example:
        >>> sum(track(range(3), "Adding"))
        3
    """
    if total is None:
        total = operator.length_hint(iterable) or None
    with _display(description, total, verbose) as progress:
        for item in iterable:
            yield item
            progress.advance(progress.task_ids[0])


@contextlib.contextmanager
def steps(description: str, total: int | None, *, verbose: bool = True) -> Iterator[Callable[[str], None]]:
    """Draw a progress bar for steps that the body counts itself, once it has run for over a second.

    Args:
        description: a few words shown before the bar.
        total: the number of steps; None where it is unknown.
        verbose: whether to draw it.

    Yields:
        A function to call after each step with a few words shown behind the bar.

    Example:
        >>> with steps("Training", 2) as done:
        ...     for loss in (0.7, 0.5):
        ...         done(f"loss {loss}")
    """
    with _display(description, total, verbose) as progress:
        yield lambda note: progress.update(progress.task_ids[0], advance=1, note=note)


@contextlib.contextmanager
def status(description: str, *, verbose: bool = True) -> Iterator[Callable[[str], None]]:
    """Draw a spinner beside the description while the body runs, once it has run for over a second.

    Args:
        description: a few words on what is being done.
        verbose: whether to draw it.

    Yields:
        A function that replaces the description.

    Example:
        >>> with status("Converting") as say:
        ...     say("Still converting")
    """
    with _display(description, None, verbose) as progress:
        yield lambda text: progress.update(progress.task_ids[0], description=text)


@contextlib.contextmanager
def stage_lines() -> Iterator[None]:
    """Report each stage of the body in one line on stderr, where that is neither a terminal nor a notebook."""
    token = _lines.set(True)
    try:
        yield
    finally:
        _lines.reset(token)


@contextlib.contextmanager
def _display(description: str, total: int | None, verbose: bool) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    # In a terminal too narrow for all, the description is shortened, and the figures are shown in full.
    description_column = Column(overflow="ellipsis")
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False, table_column=description_column)]
    if total is None:
        columns.append(TimeElapsedColumn())
    else:
        whole = Column(no_wrap=True)
        columns += [BarColumn(bar_width=None), MofNCompleteColumn(table_column=whole)]
        columns += [TimeRemainingColumn(table_column=whole), TextColumn("{task.fields[note]}", markup=False)]
    with _console() as console:
        # No redirection of sys.stdout: the body may redirect it too, and the two would not nest.
        progress = Progress(
            *columns,
            console=console,
            transient=True,
            expand=total is not None,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        progress.add_task(description, total=total, note="")
        with contextlib.ExitStack() as shown:
            if verbose and _can_draw(console):
                shown.enter_context(_shown_after_delay(progress.start, progress.stop))
            elif verbose and _lines.get() and _has_descriptor(console.file):
                line = _Line(progress)
                shown.enter_context(_shown_after_delay(line.start, line.stop))
            yield progress


class _Line:
    """One line for a stage: its name once it is shown, its seconds and last note when it is done."""

    def __init__(self, progress: Progress):
        self._task, self._file = progress.tasks[0], progress.console.file
        self._begin = time.perf_counter()

    def start(self) -> None:
        self._write(f"{self._task.description} ...")

    def stop(self) -> None:
        note = self._task.fields["note"]
        self._write(f" {time.perf_counter() - self._begin:.0f} s{note and ', '}{note}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk is no reason to stop the work
            self._file.write(text)
            self._file.flush()


@contextlib.contextmanager
def _shown_after_delay(show: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Show after the delay, unless the body is done by then or another stage is being shown."""
    started = False

    def start() -> None:
        nonlocal started
        if _drawing.acquire(blocking=False):
            started = True
            show()

    timer = threading.Timer(DELAY_SECONDS, start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if started:
            end()
            _drawing.release()


@contextlib.contextmanager
def _console() -> Iterator[Console]:
    """A console on stderr, through a copy of its file descriptor.

    The copy still reaches the terminal while the body keeps C code quiet by redirecting descriptor 2.
    """
    from rich.console import Console

    if not (sys.stderr.isatty() or (_lines.get() and _has_descriptor(sys.stderr))):
        yield Console(stderr=True)
        return
    with os.fdopen(
        os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="backslashreplace"
    ) as terminal:
        yield Console(file=terminal)


def _has_descriptor(stream: IO[str]) -> bool:
    """Whether it is a file of the system, and not an object that stands in for one while output is captured."""
    try:
        return stream.fileno() >= 0
    except (AttributeError, OSError):
        return False


def _can_draw(console: Console) -> bool:
    # Without ipywidgets rich warns in a notebook instead of drawing.
    in_notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return in_notebook or console.is_interactive
