"""Room on Python's stack: Keras follows a graph by recursion, a call for each layer of its longest path."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

_CALLS = 10_000


@contextlib.contextmanager
def followed_by_recursion() -> Iterator[None]:
    """While the body runs, Keras can follow graphs of thousands of layers; Python's own limit is 1,000 calls."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _CALLS))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
