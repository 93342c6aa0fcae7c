"""What code that is only shown uses of edgeprune: checked without running it."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable
from typing import Any


def checked_calls(blocks: Iterable[str]) -> int:
    """Check every name that code imports or reads from edgeprune's modules, and every keyword that it passes to one.

    Args:
        blocks: Python, in the order in which it would run.

    Returns:
        How many calls were checked.

    Raises:
        AttributeError: there is no such name.
        TypeError: a function has no such argument.
    """
    nodes = [node for source in blocks for node in ast.walk(ast.parse(source))]
    names, calls = {}, 0
    for node in nodes:
        for alias in node.names if isinstance(node, ast.ImportFrom | ast.Import) else ():
            if isinstance(node, ast.Import) and alias.name == "edgeprune":
                names[alias.asname or alias.name] = importlib.import_module("edgeprune")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgeprune"):
                names[alias.asname or alias.name] = pkgutil.resolve_name(f"{node.module}.{alias.name}")
    for node in nodes:
        called = _resolved(node.func, names) if isinstance(node, ast.Call) else None
        if called is not None:
            keywords = {word.arg: None for word in node.keywords if word.arg}  # `**settings` have no name
            places = [None for argument in node.args if not isinstance(argument, ast.Starred)]
            inspect.signature(called).bind_partial(*places, **keywords)
            calls += 1
        elif isinstance(node, ast.Attribute):
            _resolved(node, names)
    return calls


def _resolved(node: ast.AST, names: dict[str, Any]) -> Any:
    """What `a.b.c` is, where `a` is a name that the code has imported; None for anything else."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (parent := _resolved(node.value, names)) is not None:
        return getattr(parent, node.attr) if inspect.ismodule(parent) else None
    return None
