"""How sparse each layer is, and why the others are not under pruning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.sparsity import constraint_masks, prunable, schedules


@dataclasses.dataclass(frozen=True)
class WeightSparsity:
    """The zeros of one prunable weight, or the reason why a layer has none.

    Args:
        layer: name of the layer.
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
        lines = [("layer", "weight", "shape", "values", "zeros", "sparsity", "target", "")]
        for row in self.rows:
            target = "" if row.target is None else f"{row.target:.1%}"
            figures = (f"{row.size:,}", f"{row.zeros:,}", f"{row.sparsity:.1%}") if row.weight else ("", "", "")
            lines.append((row.layer, row.weight, str(row.shape or ""), *figures, target, row.note))
        lines.append(("total", "", "", f"{self.size:,}", f"{self.zeros:,}", f"{self.sparsity:.1%}", "", ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        right = (3, 4, 5, 6)
        return "\n".join(
            "  ".join(
                cell.rjust(width) if index in right else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def sparsity_report(model: Any) -> SparsityReport:
    """Count the zeros in every prunable weight of a model, under pruning or not.

    Args:
        model: a built model of either Keras.

    Returns:
        A report that prints as a table; layers that cannot be pruned or are left out stand in it with the reason.

    Raises:
        TypeError: not a Keras model.
        ValueError: the model is not built.

    Example:
        >>> print(sparsity_report(model))  # doctest: +SKIP
    """
    if not flavor.is_model(model):
        raise TypeError(f"sparsity_report takes a Keras model, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(f"Model {model.name!r} is not built, so it has no weights to count: call it on data first.")
    targets = _targets(model)
    rows = []
    for layer in flavor.layers_of(model):
        if type(layer).__name__ == "PruneLowMagnitude":  # the layer inside it is counted
            continue
        weights = prunable.prunable_weights(layer)
        for name, variable in weights.items():
            rows.append(_row(layer, name, variable, targets))
        reason = "" if weights else prunable.why_not_prunable(layer)
        if reason:
            rows.append(WeightSparsity(layer.name, "", (), 0, 0, None, reason))
    return SparsityReport(model.name, tuple(rows))


def _row(layer: Any, name: str, variable: Any, targets: dict[int, float | None]) -> WeightSparsity:
    values = np.asarray(variable)
    under_pruning = id(variable) in targets
    note = "not under pruning" if targets and not under_pruning else ""
    zeros = int(values.size - np.count_nonzero(values))
    return WeightSparsity(layer.name, name, values.shape, values.size, zeros, targets.get(id(variable)), note)


def _targets(model: Any) -> dict[int, float | None]:
    """The final sparsity of each variable under pruning, by the variable's id."""
    if flavor.is_keras_3(model):
        return {
            id(w.variable): _target(w.run.schedule, w.run.sparsity_m_by_n)
            for w in constraint_masks.masked_weights(model)
        }
    from edgeprune.sparsity import wrapper_masks

    return {
        id(variable): _target(wrapper_masks.real_schedule(wrapper), wrapper.sparsity_m_by_n)
        for wrapper in wrapper_masks.wrappers_in(model)
        for variable, _, _ in wrapper.pruning_vars
    }


def _target(schedule: Any, m_by_n: tuple[int, int] | None) -> float | None:
    return m_by_n[0] / m_by_n[1] if m_by_n else schedules.final_sparsity(schedule)
