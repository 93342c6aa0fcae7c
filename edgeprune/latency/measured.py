"""Costs in milliseconds: of operators that were timed on this machine, or on a device that a table is from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import numpy as np

from edgeprune.latency.table import LatencyTable
from edgeprune.latency.template import FileTemplate, smallest_file
from edgeprune.latency.timing import Stopwatch

NOTHING = "NOTHING"  # the text of the smallest file
_ROUNDS = 30


class MeasuredCosts:
    """Times of operators from a table, to which missing ones are added where it is of this machine.

    Args:
        table: the table.
    """

    unit = "ms"
    estimated = False

    def __init__(self, table: LatencyTable) -> None:
        self.table = table
        self.source = f"measured on {table.device}"

    def of_nothing(self) -> float:
        """Milliseconds of the smallest file; 0 where a device's table does not have it."""
        if self.table.path is not None:
            self.table.measure({NOTHING: smallest_file})
        return float(np.nan_to_num(self.table.times.get(NOTHING, 0.0)))

    def of_operators(self, template: FileTemplate, wanted: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
        """Milliseconds of each operator; those that do not run alone take none."""
        keys = [template.key(place, counts) for place, counts in wanted]
        files = {key: partial(template.alone, *one) for key, one in zip(keys, wanted, strict=True)}
        self.table.measure(files)
        return np.nan_to_num(np.array([self.table.times[key] for key in keys]))

    def of_model(self, template: FileTemplate, counts: Sequence[np.ndarray]) -> np.ndarray | None:
        """Milliseconds of whole files, timed in turns; of a table from a device, where it has all of them."""
        if self.table.path is not None:
            with Stopwatch(self.table.num_threads) as stopwatch:
                rounds = stopwatch.rounds([template.resized(row) for row in counts], _ROUNDS)
            first = np.median(rounds[0])
            return first * np.median(rounds / rounds[0], axis=1)
        known = np.array([self.table.times.get(model_key(template, row), np.nan) for row in counts])
        return None if np.isnan(known).any() else known


def model_key(template: FileTemplate, counts: np.ndarray) -> str:
    """The text that names a whole file in a table."""
    keys = "\n".join(template.key(place, counts) for place in range(len(template.operators)))
    return f"MODEL {len(template.operators)} operators {hashlib.sha256(keys.encode()).hexdigest()[:16]}"
