"""What an error of a Keras model says, in one line."""

from __future__ import annotations

import re

_LONGEST = 100


def first_line(error: Exception) -> str:
    """An error in one short line; Keras puts what happened behind a heading in colour, or below a traceback.

    Example:
        >>> first_line(ValueError("Exception encountered when calling Own.call().\\n\\nNo such axis.\\n\\nArguments"))
        'No such axis'
    """
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in re.split(r"\n\n +\w+: ", text)[-1].splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered")]
    return (lines[0] if lines else type(error).__name__)[:_LONGEST].rstrip(".")
