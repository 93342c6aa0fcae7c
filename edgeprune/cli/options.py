"""Options that several commands share, and the checks of their values."""

from __future__ import annotations

import math
from typing import Annotated

import typer

FORMATS = ("none", "dynamic", "float16", "int8", "int16x8")

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]
Threads = Annotated[int, typer.Option(help="Threads for the interpreter.")]
NoXnnpack = Annotated[bool, typer.Option("--no-xnnpack", help="Run without the XNNPACK delegate.")]
Unsafe = Annotated[
    bool,
    typer.Option("--unsafe", help="Load a model that carries Python code, which is run; only from a source you trust."),
]


def check_learning_rate(rate: float | None) -> None:
    """Refuse what is no positive number."""
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--learning-rate must be a positive number, got {rate:g}.")
