"""What an error of a Keras model says, in one line."""

from __future__ import annotations

import linecache
import re
import sys
import textwrap
import traceback
from pathlib import Path

_LONGEST = 100
_OF_NO_USER = {
    *("edgeprune", "keras", "tf_keras", "tensorflow", "numpy", "optree", "wrapt", "absl"),
    *sys.stdlib_module_names,
}


def first_line(error: Exception) -> str:
    """An error in one short line; Keras puts what happened behind a heading in colour, or below a traceback.

    Example:
        >>> first_line(ValueError("Exception encountered when calling Own.call().\\n\\nNo such axis.\\n\\nArguments"))
        'No such axis'
    """
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in re.split(r"\n\n +\w+: ", text)[-1].splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered")]
    return textwrap.shorten((lines[0] if lines else type(error).__name__).rstrip("."), _LONGEST, placeholder=" ...")


def line_of_layer(error: Exception) -> str:
    """The line of a layer's own code that an error was raised in or below; empty where there is none.

    Returns:
        As in `"y = tf.nn.relu(y)", line 12 of blocks.py`.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module, file = str(frame.f_globals.get("__name__")), frame.f_code.co_filename
        source = linecache.getline(file, line).strip()
        if module.partition(".")[0] not in _OF_NO_USER and source and not Path(file).name.startswith("__autograph"):
            return f'"{textwrap.shorten(source, _LONGEST, placeholder=" ...")}", line {line} of {Path(file).name}'
    return ""
