"""One model that a search tried, as data: what was asked for, what was measured, and what went wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

# How a trial was judged: without training on the search's samples, or exported, measured and scored as a file.
Stage = Literal["quick", "measured"]


@final
@dataclass(frozen=True)
class Trial:
    """A model that was tried.

    Attributes:
        number: its place in the search, from 0.
        stage: `"quick"`, judged without training and without a file, or `"measured"`, trained and measured on the file.
        settings: what makes the model, such as `{"target_macs": 0.5}`.
        figures: what was measured, by name: `"score"`, `"accuracy_drop"`, `"macs"`, `"size"`, `"flash"`, `"ram"`,
            `"latency_ms"`; only those that are finite.
        error: why there are none, for a trial that failed; None otherwise.
        seconds: how long it took.
    """

    number: int
    stage: Stage
    settings: Mapping[str, Any]
    figures: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Leave out what is no number."""
        finite = {name: float(value) for name, value in self.figures.items() if math.isfinite(value)}
        object.__setattr__(self, "figures", finite)

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trial:
        """The trial that `to_dict` wrote.

        Raises:
            ValueError: the values are those of no trial.
        """
        try:
            return cls(**values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{dict(values)!r:.80} is no trial: {error}") from error
