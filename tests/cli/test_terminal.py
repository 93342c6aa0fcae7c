"""Each command's output in a real terminal of 80 columns, and in a pipe."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import numpy as np
import pytest

from edgeprune import flavor

LONG = "a_convolution_whose_name_is_longer_than_most_people_would_ever_want_it_to_be"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a long name in it, data, and its file."""
    from edgeprune import export_tflite

    folder = tmp_path_factory.mktemp("terminal")
    keras = flavor.keras_module(flavor.KERAS_3)
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name=LONG), keras.layers.Flatten()]
    model = keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax", name="classes")])
    model.save(folder / "model.keras")
    export_tflite(model, folder / f"{LONG}.tflite", verify=False)
    np.savez(folder / "data.npz", x=np.random.default_rng(0).random((16, 8, 8, 3), np.float32), y=np.arange(16) % 3)
    return folder


# One process for several commands: each starts TensorFlow, which takes as long as what it draws.
RUN = """
import json, sys
from edgeprune import cli
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code, arguments
    print("\\x1e", flush=True)
"""


def in_terminal(folder, commands):
    """What each command draws on a terminal of 80 columns, without colours."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    arguments = [sys.executable, "-c", RUN, json.dumps(commands)]
    process = subprocess.Popen(
        arguments, cwd=folder, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL, env=environment | {"TERM": "xterm"}
    )
    os.close(slave)
    drawn = bytearray()
    with contextlib.suppress(OSError):  # raised once the process has closed the terminal
        while part := os.read(master, 65536):
            drawn += part
    os.close(master)
    assert process.wait() == 0, drawn
    *parts, _ = re.sub(r"\x1b\[[0-9;]*m", "", drawn.decode().replace("\r\n", "\n")).split("\x1e\n")
    return parts


NOT_UTF_8 = os.fsdecode(b"caf\xe9.tflite")


@pytest.fixture(scope="module")
def piped(folder):
    """The lines that commands print where nobody looks on, and those of their standard error."""
    commands = [
        ("targets",),
        ("inspect", "model.keras"),
        ("inspect", "model.keras", "--json"),
        ("convert", "model.keras", "-o", NOT_UTF_8),
    ]
    environment = os.environ | {"FORCE_COLOR": "", "COLUMNS": "80", "PYTHONIOENCODING": "utf-8:strict"}
    arguments = [sys.executable, "-c", RUN, json.dumps(commands)]
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    *parts, _ = done.stdout.split("\x1e\n")
    return [part.splitlines() for part in parts], done.stderr.splitlines()


COMMANDS = (
    ("targets",),
    ("inspect", "model.keras"),
    ("inspect", f"{LONG}.tflite"),
    ("channels", "model.keras", "--pruning-ratio", "0.5"),
    ("benchmark", f"{LONG}.tflite", "--num-runs", "2"),
)
SLOW_COMMANDS = (
    ("verify", f"{LONG}.tflite", "--model", "model.keras", "--data", "data.npz"),
    ("bundle", "model.keras", "--data", "data.npz", "-o", "bundle"),
)


@pytest.mark.parametrize(
    "commands", [COMMANDS, pytest.param(SLOW_COMMANDS, marks=pytest.mark.slow)], ids=["quick", "slow"]
)
def test_nothing_is_cut_in_80_columns(folder, commands):
    for (command, *_), drawn in zip(commands, in_terminal(folder, commands), strict=True):
        assert "…" not in drawn and "..." not in drawn, command
        lines = drawn.splitlines()
        if command not in ("targets", "bundle"):
            assert LONG in "".join(line.split()[0] for line in lines if line[:1].strip()), f"{command}: folded, whole"
        assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines), f"{command}: too wide, and no path"


def test_a_pipe_has_one_line_a_row(piped):
    targets, layers, *_ = piped[0]
    (row,) = [line for line in targets if line.startswith("ethos-u55-128 ")]
    assert "int8" in row and "128 MACs a cycle" in row
    (row, *_) = [line for line in layers if line.startswith(LONG)]
    assert row.split()[:3] == [LONG, "Conv2D", "6x6x8"]


def test_a_command_is_quiet(piped):
    (_, _, printed, _), errors = piped
    assert json.loads("\n".join(printed))["model"]
    assert all(re.fullmatch(r".+ \.\.\. \d+ s", line) for line in errors), "one line a stage"


def test_a_file_name_that_is_not_utf_8(piped, folder):
    assert (folder / NOT_UTF_8).exists() and r"caf\udce9.tflite" in "\n".join(piped[0][3])


def test_running_several_models_is_no_warning():
    """TensorFlow warns of functions that are traced again and again, which each model that is run is."""
    import tensorflow as tf

    from edgeprune.cli.files import start_tensorflow

    def heard():
        messages = []
        handler = logging.Handler()
        handler.emit = lambda record: messages.append(record.getMessage())
        logger = tf.get_logger()
        logger.addHandler(handler)
        for _ in range(12):
            tf.function(lambda x: x + 1)(tf.zeros(()))
        logger.warning("another warning")
        logger.removeHandler(handler)
        return [message.split(" calls")[0] for message in messages]

    filters = list(tf.get_logger().filters)
    try:
        tf.get_logger().filters.clear()
        assert any("out of the last" in message for message in heard())
        start_tensorflow()
        assert heard() == ["another warning"]
    finally:
        tf.get_logger().filters[:] = filters
