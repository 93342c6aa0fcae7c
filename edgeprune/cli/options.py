"""Options that several commands share. What is out of range is refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

FORMATS = ("none", "dynamic", "float16", "int8", "int16x8")
LARGEST = 2**31 - 1  # of the counts that TensorFlow and the interpreters take
_MOST_THREADS = 256
_LARGEST_FLOAT = 3.4e38  # of float32, in which models train


def _positive(value: float | None) -> float | None:
    return _checked(value, "a positive number", lambda number: 0 < number < _LARGEST_FLOAT)


def _sparsity(value: float | None) -> float | None:
    return _checked(value, "a fraction from 0 to below 1", lambda number: 0 <= number < 1)


def _kept(value: float | None) -> float | None:
    return _checked(value, "a fraction above 0 and at most 1", lambda number: 0 < number <= 1)


def _checked(value: float | None, wanted: str, fits: Callable[[float], bool]) -> float | None:
    if value is not None and not fits(value):  # NaN fits nowhere
        raise typer.BadParameter(f"must be {wanted}, got {value:g}.")
    return value


def _not_empty(value: str | None) -> str | None:
    if value is not None and not value.strip():
        raise typer.BadParameter("must not be empty.")
    return value


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Threads = Annotated[int, typer.Option(min=1, max=_MOST_THREADS, help="Threads for the interpreter.")]
NoXnnpack = Annotated[bool, typer.Option("--no-xnnpack", help="Run without the XNNPACK delegate.")]
Unsafe = Annotated[
    bool,
    typer.Option("--unsafe", help="Load a model that carries Python code, which is run; only from a source you trust."),
]
BatchSize = Annotated[int, typer.Option(min=1, max=LARGEST, help="Samples per step.")]
LearningRate = Annotated[float | None, typer.Option(callback=_positive, help="By default that of the model.")]
Loss = Annotated[str | None, typer.Option(callback=_not_empty, help="A Keras loss; by default that of the model.")]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        callback=_not_empty,
        help="A Keras metric to score by, or module:function of (y_true, y_pred); by default the model's own.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**32 - 1, help="Of dropout and the order of samples; the same gives the same figures."),
]
Sparsity = Annotated[float, typer.Option(callback=_sparsity, help="Fraction of zeros to end with.")]
Ratio = Annotated[float | None, typer.Option(callback=_sparsity, help="Fraction of the channels to remove.")]
KeptMacs = Annotated[float | None, typer.Option(callback=_kept, help="Fraction of the multiplications to keep.")]
KeptParams = Annotated[float | None, typer.Option(callback=_kept, help="Fraction of the parameters to keep.")]
Name = Annotated[str | None, typer.Option(callback=_not_empty, help="The model's name in the bundle.")]
