"""Keep the converter quiet: it prints from Python and from C, to both streams."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


class CapturedOutput:
    """What was written while `captured_output` was open."""

    text = ""


@contextlib.contextmanager
def captured_output() -> Iterator[CapturedOutput]:
    """Catch all that this process writes to stdout and stderr while the body runs, by Python or by C.

    Yields:
        An object whose `text` holds what was caught, once the body is done or has failed.
    """
    captured = CapturedOutput()
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as restore:
        stream = io.TextIOWrapper(file, encoding="utf-8", write_through=True)
        restore.callback(_detach, stream, captured)
        restore.enter_context(contextlib.redirect_stdout(stream))
        restore.enter_context(contextlib.redirect_stderr(stream))
        # Log handlers keep the stream they were made with, which in a notebook is no file descriptor.
        restore.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            restore.callback(os.close, kept)
            restore.callback(os.dup2, kept, descriptor)
            os.dup2(file.fileno(), descriptor)
        yield captured


def _detach(stream: io.TextIOWrapper, captured: CapturedOutput) -> None:
    stream.seek(0)
    captured.text = stream.buffer.read().decode(errors="replace")
    stream.detach()
