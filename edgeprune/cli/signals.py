"""Ctrl-C and what asks a process to end become an exit, so that what is half-written is removed at once."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

# Ctrl-C; what kill, timeout and docker stop send; the terminal was closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Stopped(SystemExit):
    """A signal asks the process to end; the exit code is the shell's for that signal."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let signals end the body with exit code 128 + their number, and one line on stderr.

    For a process that ends with the body: afterwards each signal ends it as it ends any other.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    for number in heeded:
        signal.signal(number, _stop)
    try:
        yield
    except _Stopped as stop:
        print(f"error: stopped by {stop.name}.", file=sys.stderr)
        raise
    finally:
        for number in heeded:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped(number)
