"""The library's errors in the words of the command line: `--pruning-ratio 2` for `pruning_ratio=2`.

The library names its own arguments. Here, in one place, they become the options that they came from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import typer
from typer.core import TyperOption

# Arguments of the library, and its words for them, that an option of another name fills.
_FILLED_BY = {
    "dense_epochs": "epochs",
    "pruned_epochs": "epochs",
    "representative_data": "data",
    "targets": "data",
    "validation_data": "data",
    "version": "model_version",
    "x": "data",
    "y": "data",
}
_SHORTEST_VALUE = 3  # a shorter text may stand in a message by chance


def in_options(message: str, context: typer.Context) -> str:
    """A message of the library with the command's options in place of arguments.

    Args:
        message: what the library says.
        context: the command that was run, with the values of its options.

    Returns:
        The message; where it names no argument, the options in front whose values it has, or the one whose name it has
        first.
    """
    options = _options(context)
    names = "|".join(sorted(options, key=len, reverse=True))
    long_names = "|".join(name for name in names.split("|") if "_" in name)  # no words of a sentence

    def option(match: re.Match[str]) -> str:
        return options[match[1]] + (" " if match[0].endswith("=") and match[2] else "")

    said = re.sub(rf"(?<![\w-])({names})=True\b", lambda match: options[match[1]], message)
    # `x=...` is what a user writes, not what was passed.
    said = re.sub(rf"(?<![\w-])({names})=(?!\.\.\.)(?=([\w'\"\[(-]|\.\d)?)", option, said)
    said = re.sub(rf"\b({long_names})\b()", option, said) if long_names else said
    said = re.sub(rf"(?<![\w-])(?<!he )({names})(?= must\b| accepts\b)()", option, said)
    if any(re.search(rf"{re.escape(known)}(?![\w-])", said) for known in options.values()):
        return said
    spoken_of = _spoken_of(said, context, options)
    return f"{', '.join(spoken_of)}: {said}" if spoken_of else said


def _options(context: typer.Context) -> dict[str, str]:
    """The command's options, by the names of the library's arguments that they fill."""
    own = {
        parameter.name: max(parameter.opts, key=len)
        for parameter in context.command.params
        if isinstance(parameter, TyperOption)
    }
    return {argument: own[name] for argument, name in _FILLED_BY.items() if name in own} | own


def _spoken_of(message: str, context: typer.Context, options: Mapping[str, str]) -> list[str]:
    """The options that were passed whose values are in the message; where none is, that whose name is first in it."""
    given = {
        name: value
        for name, value in context.params.items()
        if name in options and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    # A value inside another one is not what the message speaks of, as a folder in the path of a file.
    by_value = {name: _spans(message, value) for name, value in given.items()}
    outermost = [
        options[name]
        for name, spans in by_value.items()
        if any(not _lies_in_longer(span, by_value.values()) for span in spans)
    ]
    by_name = {
        found.start(): option
        for argument, option in options.items()
        if _FILLED_BY.get(argument, argument) in given
        and (found := re.search(rf"\b{argument.replace('_', ' ')}\b", message, re.IGNORECASE))
    }
    return outermost or [by_name[place] for place in sorted(by_name)[:1]]


def _spans(message: str, value: object) -> list[tuple[int, int]]:
    """Where a value stands in a message."""
    return [
        found.span()
        for text in _texts(value)
        if len(text) >= _SHORTEST_VALUE
        for found in re.finditer(re.escape(text), message)
    ]


def _lies_in_longer(span: tuple[int, int], several: Iterable[Sequence[tuple[int, int]]]) -> bool:
    return any(
        begin <= span[0] and span[1] <= end and end - begin > span[1] - span[0]
        for spans in several
        for begin, end in spans
    )


def _texts(value: object) -> list[str]:
    """A value as it may stand in a message: a path also as the file below which it cannot lie."""
    if isinstance(value, Path):
        # Not `Path.is_file`, which fails on a name that is too long.
        return [str(value), *(str(folder) for folder in value.parents if os.path.isfile(folder))]
    return [text for entry in value for text in _texts(entry)] if isinstance(value, list | tuple) else [str(value)]
