import contextlib
import os
import pty
import re
import sys
import threading

import pytest

from edgeprune import progress
from edgeprune.output_capture import captured_output


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


def test_verbose_false_draws_nothing(terminal):
    with terminal.stderr():
        for _ in progress.track([1], "Quiet", verbose=False):
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


def test_steps_show_what_was_reached(terminal):
    with terminal.stderr(), progress.steps("Training", 3) as done:
        done("loss 0.5")
        wait_until_drawing()
    assert "1/3" in terminal.drawn and "loss 0.5" in terminal.drawn


def test_a_bar_is_no_wider_than_the_terminal(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with terminal.stderr(), progress.steps("Training the dense model", 20_000) as done:
        for _ in range(3):
            done("loss 0.512 accuracy 0.813")
            wait_until_drawing()
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.drawn)
    lines = re.split(r"[\r\n]+", drawn)
    assert any("accuracy 0.813" in line and "/20000" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_each_stage_is_one_line_where_stderr_is_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "DELAY_SECONDS", 0.0)
    with open(tmp_path / "log", "w") as log, contextlib.redirect_stderr(log), progress.stage_lines():
        with progress.status("Converting") as say, open(os.devnull, "w") as nowhere:
            with contextlib.redirect_stderr(nowhere):
                wait_until_drawing()
                say("Calibrating")
                assert list(progress.track([1, 2], "Inner")) == [1, 2]
        with captured_output(), progress.status("Inside what is captured"):
            pause()
        with progress.steps("Training", 2) as done:
            wait_until_drawing()
            done("loss 0.7")
            done("loss 0.5")
        with pytest.raises(KeyError), progress.status("Failing"):
            wait_until_drawing()
            raise KeyError("x")
        with progress.status("Quiet", verbose=False):
            pause()
    seconds = r" \.\.\. \d+ s"
    assert re.fullmatch(
        f"Converting{seconds}\nTraining{seconds}, loss 0.5\nFailing{seconds}\n", (tmp_path / "log").read_text()
    )
