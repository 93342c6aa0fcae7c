"""stdout and stderr, whatever they are connected to: a terminal that knows few letters, a full disk, nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def open_streams() -> Iterator[None]:
    """Let the body print any text, and end without a word where nobody reads it.

    Letters that a stream cannot show are printed as their numbers: a file that was written is not refused for its name.
    """
    for descriptor in (0, 1, 2):
        _open(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed when the process began
            setattr(sys, name, open(os.devnull, "w"))
        getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            # Reported before; Python tries again at its very end, and would print a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open(descriptor: int) -> None:
    """Connect a descriptor to nothing if it is closed, lest a file that is opened later is mistaken for it."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)
