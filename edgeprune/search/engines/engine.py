"""Where trials are made: in this process, one after the other. What else makes them keeps this contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from edgeprune.search.trial.job import Job, Made
from edgeprune.search.trial.maker import Maker


class Engine(Protocol):
    """Makes trials, and returns them in the order that they were asked for, so that where they are made changes none.

    A job that fails is a `Made` with its error; what is raised is a fault of the engine itself.
    """

    def made(self, jobs: Sequence[Job]) -> Iterator[Made]:
        """Make trials.

        Args:
            jobs: what to make.

        Yields:
            What each returned, in their order.
        """

    def close(self) -> None:
        """Free what it holds."""


class LocalEngine:
    """Makes trials in this process.

    Args:
        maker: makes them.
    """

    def __init__(self, maker: Maker) -> None:
        self._maker = maker

    def made(self, jobs: Sequence[Job]) -> Iterator[Made]:
        """Make trials one after the other, each when it is asked for."""
        return map(self._maker.made, jobs)

    def close(self) -> None:
        """There is nothing to free."""
