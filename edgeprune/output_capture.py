"""Keep TensorFlow's converter and interpreters quiet: they print from Python and from C, to both streams."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import IO


class CapturedOutput:
    """What was written while `captured_output` was open."""

    text = ""


class _Diverted(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr.

    A log handler that is made meanwhile keeps it; so afterwards it hands on to the stream it stood in for.
    """

    def __init__(self, file: IO[bytes], original: IO[str]):
        self._file, self._original = file, original

    def write(self, text: str) -> int:
        if self._file.closed:
            return self._original.write(text)
        self._file.write(text.encode(errors="replace"))
        return len(text)

    def flush(self) -> None:
        (self._original if self._file.closed else self._file).flush()


@contextlib.contextmanager
def captured_output() -> Iterator[CapturedOutput]:
    """Catch all that this process writes to stdout and stderr while the body runs, by Python or by C.

    Yields:
        An object whose `text` holds what was caught, once the body is done or has failed.
    """
    captured = CapturedOutput()
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile(buffering=0) as file, contextlib.ExitStack() as restore:
        restore.callback(_read_back, file, captured)
        restore.enter_context(contextlib.redirect_stdout(_Diverted(file, sys.stdout)))
        restore.enter_context(contextlib.redirect_stderr(_Diverted(file, sys.stderr)))
        restore.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # Log handlers keep the stream they were made with, which in a notebook is no file descriptor.
        restore.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            restore.callback(os.close, kept)
            restore.callback(os.dup2, kept, descriptor)
            os.dup2(file.fileno(), descriptor)
        yield captured


def _read_back(file: IO[bytes], captured: CapturedOutput) -> None:
    file.seek(0)
    captured.text = file.read().decode(errors="replace")
