"""What a smaller model computes, without building it: a copy of the original at full width reads removed channels as
zero, as the proof of a plan has it.

The copy is compiled once for each shape of batch. From one candidate to the next only the weights that read other
channels than before are assigned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Slot, Step
from edgeprune.channels.graph.execution import run
from edgeprune.channels.rebuild.slicing import counterparts, rebuild, remaining
from edgeprune.channels.reconstruct.linear import linear_parts
from edgeprune.data.batches import batches_of
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import input_tensors
from edgeprune.types import AnyTensor, DataLike, Layer, Variable

if TYPE_CHECKING:
    import tensorflow as tf

# `id` of a variable of the original to the values that it has in a candidate, in the original's shape.
Values = Mapping[int, np.ndarray]
NO_VALUES: Values = MappingProxyType({})


class Candidates:
    """Smaller models of a traced one, computed on the same samples.

    Args:
        graph: the traced model, which is not changed.
        x: samples in any form that `model.fit` accepts, held in memory; labels are not looked at.
        batch_size: samples at once where `x` are arrays.

    Raises:
        ValueError: there are no samples, or they do not fit the model.

    Example:
        >>> from edgeprune.channels.graph.trace import trace
        >>> graph = trace(model)
        >>> kept = graph.full_mask()
        >>> kept[graph.groups[0].classes[:3]] = False
        >>> [(name, outputs.shape) for name, outputs in Candidates(graph, x).outputs(kept).items()]
        [('head', (64, 10))]
    """

    def __init__(self, graph: ChannelGraph, x: DataLike, batch_size: int = 32) -> None:
        self.graph = graph
        batches = batches_of(x, batch_size, inputs=input_shapes(graph.walked))
        self.batches = [input_tensors(graph.walked, batch.x) for batch in batches]
        if not self.batches:
            raise ValueError("The data has no batches.")
        copy = flavor.Rebuilder(renamed=graph.renamed, taken_names=graph.rebuilt_names.values()).build(graph.walked)
        self._layers = counterparts(graph, copy)
        self._originals = [
            _Original(old, new, [slot for slot in graph.weight_slots.get(id(old), {}).values() if slot.reads])
            for old, new in _weight_pairs(graph, self._layers)
        ]
        self._changed: set[int] = set()  # weights that were not the original's last time
        self._is_stateful = any(getattr(layer, "stateful", False) for layer in flavor.layers_of(copy))
        self._copy = copy

    def outputs(self, kept_mask: np.ndarray, values: Values = NO_VALUES) -> dict[str, np.ndarray]:
        """The outputs of a smaller model for all samples.

        Args:
            kept_mask: bool array `(graph.class_count,)`, True for the classes that are kept.
            values: what some of its weights are, in the shapes of the original; left out, the original's.

        Returns:
            Output name to array `(samples, ...)`.
        """
        if self.must_be_built(kept_mask):
            call: Callable[..., Any] = partial(flavor.call_model, self.built(kept_mask, values))
        else:
            self._assign(kept_mask, values)
            call = self._call
        batches = [[np.asarray(one) for one in call(batch)] for batch in self.batches]
        flat = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        return flavor.named_outputs(self.graph.model, flavor.pack_outputs(self.graph.walked, flat))

    def must_be_built(self, kept_mask: np.ndarray) -> bool:
        """Whether a layer that loses channels computes statistics over them, which zeros would be part of."""
        return any(not kept_mask[classes].all() for classes in self._mixed)

    @cached_property
    def _mixed(self) -> list[np.ndarray]:
        """The classes over which layers compute statistics."""
        return [
            classes
            for step in self.graph.steps
            if step.mixes
            # A kernel mixes what it reads anyhow: an activation behind it works on the outputs.
            for place in (*step.outputs, *(() if _is_read_by_its_kernel(step.layer) else step.inputs))
            for classes in self.graph.tensors[place].axes.values()
        ]

    def _assign(self, kept_mask: np.ndarray, values: Values) -> None:
        for original in self._originals:
            key = id(original.old)
            if original.reads_channels or key in values or key in self._changed:
                original.assign(kept_mask, values.get(key))
        self._changed = set(values)
        self._mask.assign(kept_mask)

    def _call(self, batch: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """The outputs for a batch; the last one is filled up, as another size would be compiled again."""
        import tensorflow as tf

        size, full = len(batch[0]), len(self.batches[0][0])
        if size < full:
            batch = [tf.concat([x, tf.repeat(x[-1:], full - size, axis=0)], 0) for x in batch]
        if not self._is_stateful:
            return [one[:size] for one in self._compiled(*batch)]
        with flavor.state_restored(self._copy):
            return [one[:size] for one in self._compiled(*batch)]

    @cached_property
    def _mask(self) -> Any:
        """A variable: which classes are kept."""
        import tensorflow as tf

        return tf.Variable(self.graph.full_mask(), trainable=False)

    @cached_property
    def _compiled(self) -> Callable[..., Sequence[tf.Tensor]]:
        import tensorflow as tf

        return tf.function(lambda *inputs: run(self.graph, inputs, self._step), autograph=False)

    def _step(self, step: Step, node: flavor.GraphNode, taken: list[tf.Tensor]) -> list[tf.Tensor]:
        if step.reads and not _is_read_by_its_kernel(step.layer):
            taken = list(taken)
            for position, axis, classes in step.reads:
                taken[position] = self._masked(taken[position], axis, classes)
        is_made_by_layer = flavor.function_name(step.layer) is None
        return flavor.call_layer(node, taken, self._layers[id(step.layer)] if is_made_by_layer else step.layer)

    def _masked(self, tensor: AnyTensor, axis: int, classes: np.ndarray) -> Any:
        import tensorflow as tf

        shape = [-1 if a == axis else 1 for a in range(len(tensor.shape))]
        made = tensor * tf.cast(tf.reshape(tf.gather(self._mask, classes), shape), tensor.dtype)
        if (steps := getattr(tensor, "_keras_mask", None)) is not None:
            made._keras_mask = steps
        return made

    def built(self, kept_mask: np.ndarray, values: Values = NO_VALUES) -> Any:
        """The smaller model itself, with these weights.

        Args:
            kept_mask: as in `outputs`.
            values: as in `outputs`.
        """
        smaller = rebuild(self.graph, kept_mask)
        for old, new in _weight_pairs(self.graph, counterparts(self.graph, smaller)):
            if id(old) in values:
                new.assign(remaining(self.graph, kept_mask, old, values[id(old)]))
        return smaller


class _Original:
    """A weight of the original, that of the copy, and the axes along which it reads channels."""

    def __init__(self, old: Variable, new: Variable, reads: Sequence[Slot]) -> None:
        self.old, self.new = old, new
        self._reads = [(slot.classes, slot.spread) for slot in reads]
        self._read: bytes | None = b"".join(np.ones(classes.size, bool).tobytes() for classes, _ in self._reads)

    @property
    def reads_channels(self) -> bool:
        """Whether removed channels change it."""
        return bool(self._reads)

    def assign(self, kept_mask: np.ndarray, values: np.ndarray | None) -> None:
        """Assign these values to the copy, or the original's, with zeros where they read what is removed."""
        kept = [kept_mask[classes] for classes, _ in self._reads]
        read = b"".join(one.tobytes() for one in kept)
        if values is None and read == self._read:
            return
        array = flavor.array_of(self.old) if values is None else values
        for own, (_, spread) in zip(kept, self._reads, strict=True):
            if not own.all():
                array = array * own.reshape(spread).astype(array.dtype)
        self.new.assign(array)
        self._read = read if values is None else None


def _weight_pairs(graph: ChannelGraph, layers: Mapping[int, Layer]) -> list[tuple[Variable, Variable]]:
    """Each weight that the graph's layers hold, with that of the layer that stands for its layer in another model."""
    called = {id(step.layer): step.layer for step in graph.steps if flavor.function_name(step.layer) is None}
    olds = [weight for layer in called.values() for weight in flavor.weights_of(layer)]
    news = [weight for key in called for weight in flavor.weights_of(layers[key])]
    return list(zip(olds, news, strict=True))


def _is_read_by_its_kernel(layer: Layer) -> bool:
    """Whether all that a layer sums over is weighed by a kernel of its own, so that zeros there are enough."""
    parts = linear_parts(layer)
    return len(parts) == 1 and not parts[0].inside
