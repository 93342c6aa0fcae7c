"""The command line run in this process."""

from __future__ import annotations

from typer.testing import CliRunner

from edgeprune.cli import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_ok(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments):
    """Run, expect exit code 2 and one line on stderr, and return the line."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def tiny_model(keras, classes=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(classes, activation="softmax", name="classes"),
        ],
        name="tiny",
    )
