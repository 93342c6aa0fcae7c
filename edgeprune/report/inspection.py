"""A model layer by layer: shapes, MACs, parameters, zeros."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import flavor
from edgeprune.measure.macs import count_macs
from edgeprune.measure.parameters import count_parameters
from edgeprune.sparsity.prunable import prunable_weights

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: its name, with the names of the models around it: `"block/conv"`.
        type: its class.
        output_shapes: the shapes it gives, None for the batch; empty where the graph is not known.
        macs: multiply-accumulates for one sample.
        parameters: number of its own parameters.
        prunable: how many of them are weights that can be pruned.
        zeros: how many of those are zero.
    """

    name: str
    type: str
    output_shapes: tuple[tuple[int | None, ...], ...]
    macs: int
    parameters: int
    prunable: int
    zeros: int


@dataclass(frozen=True)
class Inspection:
    """A model layer by layer. Prints as a table.

    Attributes:
        model: the model's name.
        flavor: `"keras"` or `"tf_keras"`.
        layers: one row for each layer, models and composite layers before their parts.
        macs: multiply-accumulates for one sample.
        uncounted: what may multiply and could not be counted.
        parameters: number of parameters.
    """

    model: str
    flavor: str
    layers: tuple[LayerRow, ...]
    macs: int
    uncounted: tuple[str, ...]
    parameters: int

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in all prunable weights."""
        return _share(sum(row.zeros for row in self.layers), sum(row.prunable for row in self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        return {**asdict(self), "sparsity": self.sparsity}

    def table(self) -> Table:
        """The layers as a rich table."""
        from rich import box
        from rich.table import Table

        uncounted = f" Not counted: {', '.join(self.uncounted)}." if self.uncounted else ""
        table = Table(
            title=f"{self.model} ({self.flavor})",
            caption=f"MACs for one sample.{uncounted} Zeros: in the weights that can be pruned.",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            show_footer=True,
        )
        table.add_column("Layer", "total", overflow="fold")
        table.add_column("Type", overflow="fold")
        table.add_column("Output", overflow="fold")
        table.add_column("MACs", f"{self.macs:,}", justify="right")
        table.add_column("Parameters", f"{self.parameters:,}", justify="right")
        table.add_column("Zeros", f"{self.sparsity:.1%}", justify="right")
        for row in self.layers:
            table.add_row(
                row.name,
                row.type,
                " ".join("x".join("?" if side is None else str(side) for side in s[1:]) for s in row.output_shapes),
                f"{row.macs:,}" if row.macs else "",
                f"{row.parameters:,}" if row.parameters else "",
                f"{_share(row.zeros, row.prunable):.1%}" if row.prunable else "",
            )
        return table


def inspect(model: Any) -> Inspection:
    """List a model's layers with their shapes, MACs, parameters and zeros.

    Args:
        model: a built model of `keras` 3 or `tf_keras`.

    Returns:
        One row for each layer, and the totals.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model is not built, or an input has a side of unknown length.

    Example:
        >>> import keras
        >>> inspect(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])).layers[-1].macs
        12
    """
    macs = count_macs(model)
    parameters = count_parameters(model)
    names = flavor.layer_names(model)
    rows = []
    for layer in flavor.layers_of(model):
        name = names[id(layer)]
        weights = [np.asarray(variable) for variable in prunable_weights(layer).values()]
        size = sum(values.size for values in weights)
        own = parameters.per_layer.get(name)
        rows.append(
            LayerRow(
                name=name,
                type=type(layer).__name__,
                output_shapes=tuple(flavor.output_shapes(layer)),
                macs=macs.per_layer.get(name, 0),
                parameters=own.total if own else 0,
                prunable=size,
                zeros=size - sum(int(np.count_nonzero(values)) for values in weights),
            )
        )
    return Inspection(model.name, flavor.flavor_of(model), tuple(rows), macs.total, macs.uncounted, parameters.total)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
