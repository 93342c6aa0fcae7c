"""The command as a process of its own: how signals end it, and what it prints on streams of any kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

WRITES = """
import sys, time
from edgeprune.atomic import atomic_folder, atomic_paths
from edgeprune.cli.signals import exit_on_signals
from edgeprune.cli.streams import open_streams
with open_streams(), exit_on_signals(), atomic_paths("new/m", "n") as paths, atomic_folder("b") as folder:
    paths[0].write_text("half")
    (folder / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_and_says_one_line(tmp_path, number):
    # Tests that run in the background, or under nohup, pass on that signals are ignored.
    script = f"import signal; signal.signal({number:d}, signal.SIG_DFL)\n{WRITES}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert errors == f"error: stopped by {number.name}.\n"
    assert os.listdir(tmp_path) == []


def test_a_signal_that_was_ignored_stays_ignored(tmp_path):
    """As under nohup."""
    script = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n{WRITES}".replace("sleep(60)", "sleep(0.1)")
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        process.communicate()
    assert process.returncode != 128 + signal.SIGHUP


def edgeprune(*arguments, redirect="", **environment):
    """Run the command in a shell, with its output redirected."""
    command = f"{sys.executable} -m edgeprune {' '.join(arguments)} {redirect}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_a_terminal_that_knows_few_letters():
    done = edgeprune("targets", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "cortex-m" in done.stdout and done.stdout.isascii()
    refused = edgeprune("inspect", "größe.keras", PYTHONIOENCODING="ascii")
    assert refused.returncode == 2 and r"gr\xf6\xdfe.keras" in refused.stderr


@pytest.mark.parametrize("redirect", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(redirect):
    done = edgeprune("targets", redirect=redirect)
    assert done.returncode == 0 and done.stderr == ""


def test_a_reader_that_has_seen_enough():
    done = edgeprune("targets", redirect="| true")
    assert done.returncode in (0, 128 + signal.SIGPIPE) and done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_disk_that_is_full_for_the_output():
    done = edgeprune("targets", "--json", redirect="> /dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: [Errno 28] No space left on device: 'stdout'\n"
