"""How sparse each layer is, and why the others are not under pruning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.sparsity import prunable
from edgeprune.sparsity.mechanism import mechanism_of
from edgeprune.text_table import text_table
from edgeprune.types import Model, Variable


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """The zeros of one prunable weight, or the reason why a layer has none.

    Args:
        layer: name of the layer, after those of the models and layers around it: `"encoder/dense"`.
        weight: name of the weight; empty for a layer that is not pruned as a whole.
        shape: its shape.
        size: number of values.
        zeros: number of values that are exactly zero, now.
        target: sparsity its schedule ends with, 0 to 1; None without one.
        note: why it is not under pruning; empty where it is, or where nothing is.
    """

    layer: str
    weight: str
    shape: tuple[int, ...]
    size: int
    zeros: int
    target: float | None
    note: str

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, 0 to 1."""
        return self.zeros / self.size if self.size else 0.0


@dataclasses.dataclass(frozen=True)
class SparsityReport:
    """The zeros of a model, weight by weight. Prints as a table; `rows` has the figures."""

    model: str
    rows: tuple[WeightSparsity, ...]

    @property
    def size(self) -> int:
        """Number of prunable values."""
        return sum(row.size for row in self.rows if row.weight)

    @property
    def zeros(self) -> int:
        """Number of prunable values that are zero."""
        return sum(row.zeros for row in self.rows if row.weight)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros over all prunable weights, 0 to 1."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def skipped(self) -> dict[str, str]:
        """The layers with weights that are not under pruning, and why."""
        return {row.layer: row.note for row in self.rows if row.note}

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data, for JSON."""
        rows = [{**dataclasses.asdict(row), "sparsity": row.sparsity} for row in self.rows]
        return {
            "model": self.model,
            "size": self.size,
            "zeros": self.zeros,
            "sparsity": self.sparsity,
            "rows": rows,
        }

    def __str__(self) -> str:
        lines = []
        for row in (row for row in self.rows if row.weight):
            target = "" if row.target is None else f"{row.target:.1%}"
            figures = (f"{row.size:,}", f"{row.zeros:,}", f"{row.sparsity:.1%}")
            lines.append((row.layer, row.weight, str(row.shape), *figures, target, row.note))
        lines.append(("total", "", "", f"{self.size:,}", f"{self.zeros:,}", f"{self.sparsity:.1%}", "", ""))
        header = ("layer", "weight", "shape", "values", "zeros", "sparsity", "target", "")
        return "\n".join([text_table(header, lines, left=(0, 1, 2, 7)), *self._without_weights()])

    def _without_weights(self) -> list[str]:
        """A line for each reason why whole layers are left alone."""
        by_reason: dict[str, list[str]] = {}
        for row in self.rows:
            if not row.weight:
                by_reason.setdefault(row.note, []).append(row.layer)
        return [f"not pruned: {', '.join(layers)} ({reason})" for reason, layers in by_reason.items()]


def sparsity_report(model: Model) -> SparsityReport:
    """Count the zeros in every prunable weight of a model, under pruning or not.

    Args:
        model: a built model of either Keras.

    Returns:
        A report that prints as a table; layers that cannot be pruned or are left out stand in it with the reason.

    Raises:
        TypeError: not a Keras model.
        ValueError: the model is not built.

    Example:
        >>> report = sparsity_report(model)
        >>> report.sparsity, [row.layer for row in report.rows if row.weight]
        (0.0, ['stem', 'conv', 'head'])
    """
    flavor.check_built_model(model)
    mechanism, names = mechanism_of(model), prunable.names_of(model)
    targets = {id(weight.variable): weight.run.final_sparsity for weight in mechanism.masked_weights(model)}
    refused = {layer: reason for run in mechanism.runs(model) for layer, reason in run.refused.items()}
    rows: list[WeightSparsity] = []
    seen: set[int] = set()
    for layer in flavor.layers_of(model):
        if type(layer).__name__ == "PruneLowMagnitude":  # the layer inside it is counted
            continue
        name = names[id(layer)]
        weights = prunable.prunable_weights(layer)
        for weight, variable in weights.items():
            if id(variable) not in seen:  # a composite layer may name a kernel of a layer inside it
                note = refused.get(layer, "not under pruning") if targets and id(variable) not in targets else ""
                rows.append(_row(name, weight, variable, targets.get(id(variable)), note))
        seen.update(map(id, weights.values()))
        reason = "" if weights else prunable.why_not_prunable(layer)
        if reason:
            rows.append(WeightSparsity(name, "", (), 0, 0, None, reason))
    return SparsityReport(model.name, tuple(rows))


def _row(layer: str, weight: str, variable: Variable, target: float | None, note: str) -> WeightSparsity:
    values = np.asarray(variable)
    zeros = int(values.size - np.count_nonzero(values))
    return WeightSparsity(layer, weight, values.shape, values.size, zeros, target, note)
