import contextlib
import os
import pty
import sys
import threading

import pytest

from edgeprune import progress


class Terminal:
    """A pseudo-terminal; `stderr()` makes it the standard error, and `drawn` holds all that was drawn on it."""

    def __init__(self):
        self.drawn = ""

    @contextlib.contextmanager
    def stderr(self):
        master, slave = pty.openpty()
        received = bytearray()

        def read():
            with contextlib.suppress(OSError):  # raised once the last writer has closed the terminal
                while True:
                    received.extend(os.read(master, 4096))

        reader = threading.Thread(target=read)
        reader.start()
        stream = os.fdopen(slave, "w", encoding="utf-8")
        try:
            with contextlib.redirect_stderr(stream):
                yield
        finally:
            stream.close()
            reader.join()
            os.close(master)
            self.drawn = received.decode()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.0)
    return Terminal()


def pause():
    threading.Event().wait(0.3)


def wait_until_drawing():
    for _ in range(1000):
        if progress._drawing.locked():
            return pause()
        threading.Event().wait(0.01)
    raise AssertionError("nothing is drawn")


def test_track_draws_its_description_and_count(terminal):
    items = []
    with terminal.stderr():
        for item in progress.track(iter("abc"), "Counting [letters]", total=3):
            items.append(item)
            wait_until_drawing()
    assert items == ["a", "b", "c"]
    assert "Counting [letters]" in terminal.drawn and "2/3" in terminal.drawn


def test_short_work_draws_nothing(terminal, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 60.0)
    with terminal.stderr():
        assert list(progress.track([1, 2], "Short")) == [1, 2]
        with progress.status("Short"):
            pass
    assert terminal.drawn == ""


def test_quiet_draws_nothing(terminal):
    with terminal.stderr():
        for _ in progress.track([1], "Quiet", quiet=True):
            pause()
    assert terminal.drawn == ""


def test_status_is_drawn_even_while_the_body_redirects_stderr(terminal):
    with terminal.stderr(), progress.status("Converting") as say:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            say("Calibrating")
            wait_until_drawing()
    assert "Calibrating" in terminal.drawn


def test_only_the_outer_of_two_is_drawn(terminal):
    with terminal.stderr(), progress.status("Outer"):
        wait_until_drawing()
        for _ in progress.track([1], "Inner"):
            pause()
    assert "Outer" in terminal.drawn and "Inner" not in terminal.drawn


def test_silent_where_stderr_is_no_terminal(capfd, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.0)
    assert not sys.stderr.isatty()
    for _ in progress.track([1], "Bar"):
        pause()
    with progress.status("Spinner"):
        pause()
    assert capfd.readouterr() == ("", "")


def test_an_error_in_the_body_ends_the_drawing_and_is_passed_on(terminal):
    with terminal.stderr(), pytest.raises(KeyError), progress.status("Failing"):
        wait_until_drawing()
        raise KeyError("x")
    assert not progress._drawing.locked()
