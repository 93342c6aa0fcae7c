"""What reconstruction gained: the errors of each layer and of the outputs, before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeprune.channels.graph.coupling import by_reason
from edgeprune.text_table import text_table
from edgeprune.types import Model


@dataclass(frozen=True)
class SolvedLayer:
    """A layer whose weights were solved.

    Attributes:
        name: its path name.
        before: the error of its output with the weights that the removal left, on the inputs that the smaller model
            gives it, relative to the original's output: the norm of the difference over the norm.
        after: the same with the solved weights.
        rows: the number of places of the samples it was solved on.
        inputs: the number of weights that each of its outputs has.
        ridge: the ridge that the data chose, relative to the mean square of an input; infinite where only the bias
            changed.
    """

    name: str
    before: float
    after: float
    rows: int
    inputs: int
    ridge: float


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A model without some of its channels or weights, whose layers were solved again on data, and what that gained.

    Attributes:
        model: the model.
        layers: the layers that were solved, in the order of the graph.
        recalibrated: path names of the batch normalizations whose statistics changed.
        unsolved: path names of the layers that keep the weights that the removal left, each with the reason.
        before: the error of the model's outputs after the removal alone, on the same samples: of each output the norm
            of the difference over that of the original's deviation from its mean, averaged over the outputs.
        after: the same after reconstruction.
        num_samples: the number of samples.
    """

    model: Model
    layers: tuple[SolvedLayer, ...]
    recalibrated: tuple[str, ...]
    unsolved: Mapping[str, str]
    before: float
    after: float
    num_samples: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON has them: all but the model; an infinite ridge is None."""
        layers = [asdict(one) | {"ridge": one.ridge if math.isfinite(one.ridge) else None} for one in self.layers]
        return {
            "before": self.before,
            "after": self.after,
            "num_samples": self.num_samples,
            "layers": layers,
            "recalibrated": list(self.recalibrated),
            "unsolved": dict(self.unsolved),
        }

    def __str__(self) -> str:
        rows = [
            (one.name, f"{one.before:.1%}", f"{one.after:.1%}", f"{one.ridge:.0e}", f"{one.rows:,}", f"{one.inputs:,}")
            for one in self.layers
        ]
        rows.append(("output", f"{self.before:.1%}", f"{self.after:.1%}", "", f"{self.num_samples:,}", ""))
        header = ("layer", "error before", "after", "ridge", "rows", "inputs")
        lines = [f"Reconstruction of {self.model.name!r}", text_table(header, rows)]
        if self.recalibrated:
            lines.append(f"recalibrated: {len(self.recalibrated)} batch normalizations")
        lines += [f"not solved: {names} ({reason})" for names, reason in by_reason(self.unsolved, "unsolved")]
        return "\n".join(lines)
