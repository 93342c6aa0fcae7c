"""Numbers among the arguments, refused in one line where they are none, not finite or out of their range."""

from __future__ import annotations

import math
import numbers


def check_number(name: str, value: object) -> None:
    """Check that an argument is one finite number.

    Raises:
        TypeError: it is something else.
        ValueError: it is NaN or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {value!r}.")
    if not isinstance(value, numbers.Integral) and not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number; got {value}.")


def check_whole(name: str, value: object, least: int) -> None:
    """Check that an argument is a whole number, not less than another.

    Raises:
        TypeError: it is no number.
        ValueError: it is not whole, or too small.
    """
    check_number(name, value)
    if not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of {least} or more; got {value}.")


def check_target(kind: str, value: float) -> None:
    """Check that a target is in its range: `"pruning_ratio"`, a fraction to remove, or `"target_..."`, one to keep.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of its range.
    """
    check_number(kind, value)
    if kind == "pruning_ratio" and not 0 <= value < 1:
        raise ValueError(f"pruning_ratio is the fraction of the channels to remove, from 0 to below 1; got {value}.")
    if kind != "pruning_ratio" and not 0 < value <= 1:
        raise ValueError(f"{kind} is the fraction to keep, above 0 and at most 1; got {value}.")


def check_seed(seed: object) -> None:
    """Check that an argument is the seed of a generator: a whole number, 0 or more, or None for another one each time.

    Raises:
        TypeError: it is no number.
        ValueError: it is not whole, or negative.
    """
    if seed is not None:
        check_whole("seed", seed, 0)
