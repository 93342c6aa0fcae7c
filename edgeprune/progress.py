"""Signs of life for work that takes over a second: a bar where the steps are known, a spinner where not.

Both are drawn on stderr, only in a terminal or a notebook, and are gone when the work is done. When two
are asked for at once, the outer one is drawn.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")

DELAY_SECONDS = 1.0
_drawing = threading.Lock()


def track(iterable: Iterable[T], description: str, total: int | None = None, *, quiet: bool = False) -> Iterator[T]:
    """Iterate, drawing a progress bar once the work has taken over a second.

    Args:
        iterable: what to iterate over.
        description: a few words shown before the bar.
        total: the number of steps, where `len(iterable)` does not tell it.
        quiet: draw nothing.

    Yields:
        The items of `iterable`.

    Example:
        >>> sum(track(range(3), "Adding"))
        3
    """
    if total is None:
        total = operator.length_hint(iterable) or None
    with _display(description, total, quiet) as progress:
        for item in iterable:
            yield item
            progress.advance(progress.task_ids[0])


@contextlib.contextmanager
def status(description: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Draw a spinner beside the description while the body runs, once it has run for over a second.

    Args:
        description: a few words on what is being done.
        quiet: draw nothing.

    Yields:
        A function that replaces the description.

    Example:
        >>> with status("Converting") as say:
        ...     say("Still converting")
    """
    with _display(description, None, quiet) as progress:
        yield lambda text: progress.update(progress.task_ids[0], description=text)


@contextlib.contextmanager
def _display(description: str, total: int | None, quiet: bool) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
    if total is not None:
        columns += [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with _console() as console:
        # No redirection of sys.stdout: the body may redirect it too, and the two would not nest.
        progress = Progress(
            *columns,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        progress.add_task(description, total=total)
        if quiet or not _can_draw(console):
            yield progress
            return
        with _drawn_after_delay(progress):
            yield progress


@contextlib.contextmanager
def _drawn_after_delay(progress: Progress) -> Iterator[None]:
    """Start drawing after the delay, unless the body is done by then or another display is being drawn."""
    started = False

    def start() -> None:
        nonlocal started
        if _drawing.acquire(blocking=False):
            started = True
            progress.start()

    timer = threading.Timer(DELAY_SECONDS, start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if started:
            progress.stop()
            _drawing.release()


@contextlib.contextmanager
def _console() -> Iterator[Console]:
    """A console on stderr, through a copy of its file descriptor.

    The copy still reaches the terminal while the body keeps C code quiet by redirecting descriptor 2.
    """
    from rich.console import Console

    if not sys.stderr.isatty():
        yield Console(stderr=True)
        return
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding) as terminal:
        yield Console(file=terminal)


def _can_draw(console: Console) -> bool:
    # Without ipywidgets rich warns in a notebook instead of drawing.
    in_notebook = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    return in_notebook or console.is_interactive
