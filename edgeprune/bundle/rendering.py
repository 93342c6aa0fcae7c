"""Fill in the templates that bundles are written from.

A model's name, labels and description may hold any characters, so each language has a filter for its strings.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_FOLDER = Path(__file__).parent / "templates"


def render(template: str, **values: object) -> str:
    """Fill in a template.

    Args:
        template: its path inside the folder of templates: `"microcontroller/model_ops.h"`.
        values: what it asks for; one that is missing is an error.

    Returns:
        The text, with a line break at its end.
    """
    return _environment().get_template(template).render(**values)


def require_jinja2() -> None:
    """Say what to install where the templates cannot be filled in.

    Raises:
        ImportError: jinja2 is missing.
    """
    if importlib.util.find_spec("jinja2") is None:
        raise ImportError("Bundles are written with jinja2: pip install jinja2")


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        finalize=_printable,
    )
    environment.filters.update(
        c_string=c_string, c_comment=c_comment, c_float=c_float, c_array=c_array, markdown=markdown, json=json.dumps
    )
    return environment


def _printable(value: object) -> Any:
    """Let only text and numbers into a file: `figures.values` in a template is a method of dict, whatever its keys."""
    if not isinstance(value, str | int | float | np.number):
        raise TypeError(f"A template prints {value!r:.80}, which is neither text nor a number.")
    return value


def c_string(text: str) -> str:
    """A C string literal of UTF-8.

    Bytes outside ASCII are octal escapes, which end after three digits whatever follows; `?` is one too, as two of
    them would begin a trigraph.

    Example:
        >>> print(c_string('a"ß'))
        "a\\"\\303\\237"
    """
    plain = {ord('"'): r"\"", ord("\\"): r"\\"}
    escaped = (
        plain.get(byte) or (chr(byte) if 32 <= byte < 127 and byte != ord("?") else f"\\{byte:03o}")
        for byte in text.encode("utf-8", errors="replace")
    )
    return f'"{"".join(escaped)}"'


def c_comment(text: str) -> str:
    """Text on one line that cannot end a comment of C, nor begin another, nor go on in the next line."""
    line = " ".join(text.split()).replace("\\", "/")
    return re.sub(r"\*(?=/)|/(?=\*)|\?(?=\?)", r"\g<0> ", line)


def c_float(value: float) -> str:
    """A C literal of the same float32."""
    text = np.format_float_scientific(np.float32(value), trim="0")
    return f"{text}f"


def c_array(values: Iterable[Any], indent: int = 4, width: int = 100) -> str:
    """The values of a C array, in lines: integers as they are, floats as float32."""
    array = np.asarray(values).ravel()
    texts = map(c_float, array) if array.dtype.kind == "f" else map(str, array.astype(np.int64).tolist())
    lines, line = [], ""
    for text in texts:
        if len(line) + len(text) + 2 > width:
            lines.append(line)
            line = ""
        line += f"{text}, "
    return "\n".join(" " * indent + line.rstrip() for line in [*lines, line] if line)


def markdown(text: object) -> str:
    """Text for a line or a table's cell of Markdown, none of it taken for mark-up."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(str(text).split()))
