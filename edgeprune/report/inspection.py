"""A model layer by layer: shapes, MACs, parameters, zeros; and its groups of channels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.trace import trace
from edgeprune.flavor.example_shapes import ExampleShapes, InputShape, at_example_shapes
from edgeprune.measure.macs import count_macs
from edgeprune.measure.memory import ActivationMemory, activation_memory
from edgeprune.measure.parameters import count_parameters
from edgeprune.sparsity.prunable import prunable_weights
from edgeprune.text_table import rich_table
from edgeprune.types import Model

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: its name, with the names of the models around it: `"block/conv"`.
        type: its class.
        output_shapes: the shapes it returns, None for the batch; empty where the graph is unknown.
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
class GroupRow:
    """Channels that are removed one by one, each from all these layers at once.

    Attributes:
        name: the group's name, that of the first layer that makes its channels.
        layers: all the layers that make them.
        channels: their number.
        frozen: why none of them can be removed; None where they can.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    frozen: str | None


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
        example: the shapes of the inputs that the MACs are for.
        groups: the groups of channels; empty where the model's graph cannot be followed.
        frozen: the names of the groups and layers that keep all their channels, each with the reason.
        not_followed: why it cannot; empty where it can.
        memory: the activations alive at once as int8, and the layer that sets the peak; None where unknown.
        memory_unknown: why it is not; empty where it is.
    """

    model: str
    flavor: str
    layers: tuple[LayerRow, ...]
    macs: int
    uncounted: tuple[str, ...]
    parameters: int
    example: ExampleShapes
    groups: tuple[GroupRow, ...]
    frozen: dict[str, str]
    not_followed: str
    memory: ActivationMemory | None
    memory_unknown: str

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in all prunable weights."""
        return _share(sum(row.zeros for row in self.layers), sum(row.prunable for row in self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Every figure as plain values, for JSON."""
        return {**asdict(self), "sparsity": self.sparsity}

    def table(self) -> Table:
        """The layers as a rich table."""
        uncounted = f" Not counted: {', '.join(self.uncounted)}." if self.uncounted else ""
        rows = [
            (
                row.name,
                row.type,
                " ".join("x".join("?" if side is None else str(side) for side in s[1:]) for s in row.output_shapes),
                f"{row.macs:,}" if row.macs else "",
                f"{row.parameters:,}" if row.parameters else "",
                f"{_share(row.zeros, row.prunable):.1%}" if row.prunable else "",
            )
            for row in self.layers
        ]
        total = ("total", "", "", f"{self.macs:,}", f"{self.parameters:,}", f"{self.sparsity:.1%}")
        return rich_table(
            ("Layer", "Type", "Output", "MACs", "Parameters", "Zeros"),
            [*rows, total],
            left=(0, 1, 2),
            title=f"{self.model} ({self.flavor})",
            caption=f"MACs for one sample{self._of_what_size()}.{uncounted} Zeros: in the weights that can be pruned."
            f"\n{self._memory_words()}",
        )

    def _memory_words(self) -> str:
        if self.memory is None:
            return f"Memory: unknown, {self.memory_unknown}"
        return (
            f"Memory: at most {self.memory.peak:,} bytes of activations at once in int8, about four times that in "
            f"float32, while {self.memory.layer} runs."
        )

    def _of_what_size(self) -> str:
        chosen = ", a size chosen as the model leaves it open" if self.example.chosen else ""
        return f" of {self.example}{chosen}"

    def channel_table(self) -> Table:
        """The groups of channels, and the layers that are frozen and in none, as a rich table."""
        free = sum(group.channels for group in self.groups if group.frozen is None)
        rows = [(row.name, ", ".join(row.layers[1:]), f"{row.channels:,}", row.frozen or "") for row in self.groups]
        in_groups = {row.name for row in self.groups}
        rows += [(name, "", "", reason) for name, reason in self.frozen.items() if name not in in_groups]
        return rich_table(
            ("Group", "With", "Channels", "Frozen"),
            rows,
            left=(0, 1, 3),
            title="Channels",
            caption=self.not_followed or f"{free:,} channels can be removed (edgeprune channels).",
        )


def inspect(model: Model, input_shape: InputShape = None) -> Inspection:
    """List a model's layers with their shapes, MACs, parameters and zeros, and its groups of channels.

    Args:
        model: a built model of `keras` 3 or `tf_keras`.
        input_shape: of a model of open length or size, the shape that its MACs are for, with or without the batch; by
            input name where there are several. Left out, one that the model accepts, and what is printed says which.

    Returns:
        One row for each layer and for each group of channels, and the totals.

    Raises:
        TypeError: `model` is no Keras model, or `input_shape` no shape.
        ValueError: the model is not built, or `input_shape` does not fit it.

    Example:
        >>> import keras
        >>> inspect(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="head")])).layers[-1].macs
        12
    """
    flavor.check_model(model)
    example, macs = at_example_shapes(
        model, input_shape, lambda specs: count_macs(model, flavor.packed_as_called(model, specs))
    )
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
    groups, frozen, not_followed = _groups(model, input_shape)
    return Inspection(
        model.name,
        flavor.flavor_of(model),
        tuple(rows),
        macs.total,
        macs.uncounted,
        parameters.total,
        example,
        groups,
        frozen,
        not_followed,
        *_memory(model),
    )


def _memory(model: Model) -> tuple[ActivationMemory | None, str]:
    """The activations alive at once, or why that is unknown."""
    try:
        return activation_memory(model), ""
    except ValueError as error:  # open sizes, or a subclassed model whose graph is not available
        return None, str(error)


def _groups(model: Model, input_shape: InputShape) -> tuple[tuple[GroupRow, ...], dict[str, str], str]:
    """The groups of channels and what is frozen, or why there are none."""
    try:
        graph = trace(model, input_shape)
    except ValueError as error:  # a subclassed model whose call cannot be followed
        return (), {}, str(error)
    groups = tuple(GroupRow(group.name, group.layers, group.size, group.frozen) for group in graph.groups)
    return groups, graph.frozen, ""


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
