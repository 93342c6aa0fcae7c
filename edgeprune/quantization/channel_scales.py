"""Which channels of a model may be multiplied by a factor that the layers after them divide by again.

The factor of a channel passes through what is positively homogeneous for each channel apart (ReLU, pooling, padding,
joining, reshaping), is put into the weights of the layer that makes the channel, and is taken out of those of the
layers that read it. An addition needs the same factor on both sides. Everything else stops it; the reason is kept.

A ReLU6 lets a factor through as long as neither the values nor the scaled ones reach its bound.

Each channel of each tensor is a *node*; nodes that need the same factor are united.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Step
from edgeprune.channels.graph.ids import Ids
from edgeprune.channels.graph.rules.kernels import channel_axis, depthwise_kernel
from edgeprune.channels.reconstruct.batch_norm import statistics_axis
from edgeprune.channels.reconstruct.order import nodes_of_steps
from edgeprune.types import ArrayLike, Layer

CONVOLUTIONS = frozenset(("Conv1D", "Conv2D", "Conv3D"))
TRANSPOSED = frozenset(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"))
DEPTHWISE = frozenset(("DepthwiseConv1D", "DepthwiseConv2D"))
SEPARABLE = frozenset(("SeparableConv1D", "SeparableConv2D"))
NORMALIZATIONS = frozenset(("BatchNormalization", "SyncBatchNormalization"))
_LINEAR = CONVOLUTIONS | TRANSPOSED | DEPTHWISE | SEPARABLE | {"Dense", "Embedding"}
# Layers, and functions in the graph, that move values, add those of one channel up or choose among them.
_MOVING = frozenset(
    (
        *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "Identity"),
        *("Flatten", "Reshape", "Permute", "RepeatVector", "Concatenate", "InputLayer"),
        *(
            f"{kind}{rank}D"
            for kind in ("MaxPooling", "AveragePooling", "ZeroPadding", "Cropping", "UpSampling")
            for rank in (1, 2, 3)
        ),
        *(f"Global{kind}Pooling{rank}D" for kind in ("Max", "Average") for rank in (1, 2, 3)),
    )
)
_MOVING_FUNCTIONS = frozenset(
    "reshape ravel transpose transposev2 swapaxes moveaxis concatenate concat concatv2 split splitv getitem "
    "stridedslice squeeze squeezev2 expanddims expanddimsv2 repeat tile flip mean reducemean max reducemax amax "
    "sum reducesum maxpool averagepool identity copy stopgradient".split()
)
# Applied to each value apart; whether a factor passes through is tried out.
_ACTIVATIONS = frozenset(("Activation", "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU", "PReLU", "Rescaling"))
_ACTIVATION_FUNCTIONS = frozenset(
    "relu relu6 leakyrelu abs absolute elu selu silu swish gelu sigmoid tanh hardsigmoid hardswish hardsilu softplus "
    "clip multiply mul divide truediv realdiv clipbyvalue".split()
)
_MERGES = frozenset(("Add", "Subtract", "Average", "Maximum", "Minimum"))
_MERGE_FUNCTIONS = frozenset("add addv2 sub subtract maximum minimum".split())
_PRODUCTS = frozenset(("Multiply", "multiply", "mul"))


@dataclass(frozen=True, eq=False)
class ScaledCall:
    """A call of a layer whose weights absorb the factors.

    Attributes:
        step: the call.
        kind: the name of Keras's class.
        inputs: the nodes of the channels that it reads; None where they have none.
        outputs: the nodes of the channels that it makes; None where they have none.
    """

    step: Step
    kind: str
    inputs: np.ndarray | None
    outputs: np.ndarray | None


class ChannelScales:
    """The nodes of a traced model.

    Args:
        graph: the traced model.
        bounded: whether factors go through a bounded ReLU; the values must then be known to stay below, see `caps`.

    Attributes:
        graph: the same.
        calls: the calls that absorb factors, producers first.
        frozen: for each node the reason why its factor is 1; None where it is free.
        caps: the places that a bounded ReLU makes, each with its bound.
    """

    def __init__(self, graph: ChannelGraph, *, bounded: bool = False) -> None:
        self.graph = graph
        self.caps: dict[int, float] = {}
        self._bounded = bounded
        self.calls: list[ScaledCall] = []
        self._ids = Ids()
        self._of_step = nodes_of_steps(graph)
        self._classes = [_classes_of(tensor.axes) for tensor in graph.tensors]
        self._nodes = [self._ids.fresh(len(classes)) for classes in self._classes]
        self._readers = _readers(graph)
        self._makers = {place: step for step in graph.steps for place in step.outputs}
        self._seen: dict[int, ScaledCall] = {}
        for place, tensor in enumerate(graph.tensors):
            if len(tensor.axes) > 1:
                self._freeze(place, "its channels lie along several axes")
        for place in graph.outputs:
            self._freeze(place, "output of the model")
        for step in graph.steps:
            self._follow(step)
        for fold in graph.folds:
            self._pass([fold.taken], [fold.given], "a model for each step")
        self.roots = self._ids.find(np.arange(len(self._ids)))
        self.frozen = self._reasons()

    def freeze_capped(self, ranges: np.ndarray) -> None:
        """Freeze the channels whose values come near the bound of their ReLU.

        Args:
            ranges: the largest magnitude of each node, on data.
        """
        for place, cap in self.caps.items():
            nodes = self.nodes(place)
            if nodes is not None and (near := ~(_HEADROOM * ranges[nodes] < cap)).any():
                self._ids.freeze(nodes[near], f"its values come near {cap:g}, the bound of a ReLU")
        self.frozen = self._reasons()

    def largest_factors(self, ranges: np.ndarray) -> np.ndarray:
        """For each root the largest factor with which no values reach the bound of a ReLU; `ranges` as above."""
        most = np.full(len(self.roots), np.inf)
        for place, cap in self.caps.items():
            nodes = self.nodes(place)
            if nodes is not None:
                largest = np.maximum(cap / (_HEADROOM * np.maximum(ranges[nodes], 1e-30)), 1.0)
                np.minimum.at(most, self.roots[nodes], np.nan_to_num(largest, nan=1.0))
        return most

    def _reasons(self) -> list[str | None]:
        reasons = self._ids.frozen()
        return [reasons.get(root) for root in self.roots.tolist()]

    def nodes(self, place: int) -> np.ndarray | None:
        """The nodes along the channel axis of a tensor; None where it has none."""
        axes = self.graph.tensors[place].axes
        if len(axes) != 1:
            return None
        ((_, classes),) = axes.items()
        return self._nodes_of(place, classes)

    def shared(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """The nodes in two tensors of the channels that are in both."""
        classes = np.intersect1d(self._classes[a], self._classes[b])
        return self._nodes_of(a, classes), self._nodes_of(b, classes)

    def axis(self, place: int) -> int:
        """The axis along which `nodes(place)` lie."""
        ((axis, _),) = self.graph.tensors[place].axes.items()
        return axis

    def is_stored(self, place: int) -> bool:
        """Whether a tensor is one of the file: what only an activation or a normalization reads is fused with it."""
        readers = self._readers.get(place, [])
        fused = NORMALIZATIONS | _ACTIVATIONS | _ACTIVATION_FUNCTIONS
        return place in self.graph.outputs or len(readers) != 1 or self._kind(readers[0]) not in fused

    def name_of(self, step: Step) -> str:
        """The path name of a call's layer."""
        return self.graph.name_of(step.layer)

    def _kind(self, step: Step) -> str:
        return flavor.function_name(step.layer) or flavor.built_in_kind(step.layer)

    def _nodes_of(self, place: int, classes: np.ndarray) -> np.ndarray:
        return self._nodes[place][np.searchsorted(self._classes[place], classes)]

    def _freeze(self, place: int, reason: str, classes: np.ndarray | None = None) -> None:
        nodes = self._nodes[place] if classes is None else self._nodes_of(place, classes)
        if len(nodes):
            self._ids.freeze(nodes, reason)

    def _freeze_all(self, step: Step, reason: str) -> None:
        for place in (*step.inputs, *step.outputs):
            self._freeze(place, reason)

    def _unite(self, a: int, b: int, classes: np.ndarray) -> None:
        if len(classes):
            self._ids.unite(self._nodes_of(a, classes), self._nodes_of(b, classes))

    def _follow(self, step: Step) -> None:
        kind, name = self._kind(step), self.name_of(step)
        reason = f"{name} ({kind or type(step.layer).__name__})"
        if kind in _LINEAR or kind in NORMALIZATIONS:
            self._take_up(step, kind, name)
        elif step.mixes or step.inside:
            self._freeze_all(step, f"{reason} weighs channels against each other")
        elif kind in _MOVING or kind in _MOVING_FUNCTIONS:
            self._pass(step.inputs, step.outputs, reason)
        elif kind in _PRODUCTS and len(step.inputs) == 2:
            self._multiply(step, reason)
        elif kind in _MERGES or (kind in _MERGE_FUNCTIONS and len(step.inputs) == 2):
            self._merge(step, reason)
        elif (kind in _ACTIVATIONS or kind in _ACTIVATION_FUNCTIONS) and len(step.inputs) == 1:
            if self._takes_bound(step.outputs[0], self._bound_of_call(step)):
                self._pass(step.inputs, step.outputs, reason)
            else:
                self._freeze_all(step, f"{reason} is another function of scaled values")
        else:
            self._freeze_all(step, f"{reason} is not known to let factors through")

    def _pass(self, taken: Iterable[int], given: Iterable[int], reason: str) -> None:
        """The same factors after as before; a channel that is only on one side has none."""
        taken, given = list(taken), list(given)
        for new in given:
            known: set[int] = set()
            for old in taken:
                shared = np.intersect1d(self._classes[old], self._classes[new])
                self._unite(old, new, shared)
                known.update(shared.tolist())
            left = np.array([one for one in self._classes[new].tolist() if one not in known], int)
            self._freeze(new, f"{reason} makes it of channels without factors", left)
        if not any(len(self._classes[new]) for new in given):
            for old in taken:
                self._freeze(old, f"{reason} adds channels up")

    def _merge(self, step: Step, reason: str) -> None:
        """An element-wise operation of tensors that all need the same factor."""
        (given,) = step.outputs
        for place in step.inputs:
            for other in (*step.inputs, given):
                alone = np.setdiff1d(self._classes[place], self._classes[other])
                self._freeze(place, f"{reason} joins it with channels without factors", alone)
        self._pass(step.inputs, step.outputs, reason)

    def _multiply(self, step: Step, reason: str) -> None:
        """A product: the factor passes through the larger tensor, and the smaller one (a gate) has none."""
        volumes = [math.prod(self.graph.tensors[place].shape) for place in step.inputs]
        gate = step.inputs[0 if volumes[0] < volumes[1] else 1]
        through = [place for place in step.inputs if place != gate]
        if not through:
            return self._freeze_all(step, f"{reason} multiplies it with itself")
        self._freeze(gate, f"{reason} multiplies by it")
        self._pass(through, step.outputs, reason)

    def _take_up(self, step: Step, kind: str, name: str) -> None:
        """A layer that makes or reads channels, and whose weights hold their factors."""
        layer, given = step.layer, step.outputs[0]
        taken = None if kind == "Embedding" else step.inputs[0]
        for place in (*step.inputs[1:], *step.outputs[1:]):
            self._freeze(place, f"{name} is called with it beside its input")
        own = {id(weight) for weight in flavor.weights_of(layer)}
        if any(id(weight) not in own for weight in _weights(layer, kind)):
            return self._freeze_all(step, f"{name} computes its weights")
        axis = _axis(layer, kind, len(self.graph.tensors[given].shape))
        if axis is None:
            return self._freeze_all(step, f"{name} has statistics along several axes")
        lines = [
            None if place is None else self._along(place, axis, f"{name} works along another axis")
            for place in (taken, given)
        ]
        if kind in NORMALIZATIONS:
            self._normalize(step, name)
        elif not self._takes_bound(given, _bound_of_activation(getattr(layer, "activation", None))):
            self._freeze(given, f"the activation of {name} is another function of scaled values")
        call = ScaledCall(step, kind, *lines)
        known = self._seen.setdefault(id(layer), call)
        if known is not call:
            self._same(known, call, f"{name} is called on several tensors")
        else:
            self.calls.append(call)

    def _along(self, place: int, axis: int, reason: str) -> np.ndarray | None:
        """The nodes along an axis of a tensor."""
        tensor = self.graph.tensors[place]
        if set(tensor.axes) == {axis}:
            return self.nodes(place)
        self._freeze(place, reason)
        return None

    def _same(self, a: ScaledCall, b: ScaledCall, reason: str) -> None:
        """Two calls of a layer, which need the same factors."""
        for one, other in ((a.inputs, b.inputs), (a.outputs, b.outputs)):
            if one is not None and other is not None and len(one) == len(other):
                self._ids.unite(one, other)
            else:
                for nodes in (one, other):
                    if nodes is not None:
                        self._ids.freeze(nodes, reason)

    def _normalize(self, step: Step, name: str) -> None:
        """A batch normalization, whose gamma and beta hold the factor of its output.

        Its input keeps its scale where the layer before is folded with it: the statistics remain those of the data.
        """
        layer, (taken, given) = step.layer, (step.inputs[0], step.outputs[0])
        if layer.gamma is None:
            self._freeze(given, f"{name} has no gamma")
        maker = self._makers.get(taken)
        if maker is not None and self._kind(maker) in _LINEAR and self._readers.get(taken) == [step]:
            self._freeze(taken, f"{name} is folded into the layer before")

    def _takes_bound(self, place: int, bound: float | None) -> bool:
        """Whether factors go through what makes a tensor, below a bound that is kept."""
        if bound is None or (np.isfinite(bound) and not self._bounded):
            return False
        if np.isfinite(bound):
            self.caps[place] = bound
        return True

    def _bound_of_call(self, step: Step) -> float | None:
        """As `_bound`, of a call, tried out."""
        import tensorflow as tf

        node = self._of_step[id(step)]
        shape = self.graph.tensors[step.inputs[0]].shape
        try:
            x = tf.constant(np.random.default_rng(0).normal(size=shape), node.inputs[0].dtype)
            given = [np.asarray(flavor.call_layer(node, [x * factor])[0], np.float64) for factor in _FACTORS]
        except Exception:  # whatever a layer raises that accepts no such values
            return None
        return _bound(np.asarray(x, np.float64), given)


_FACTORS = (1.0, 0.01, 3.0, 1000.0)
_HEADROOM = 1.25  # how many times as large as on the data values may get below a bound


def _bound(x: np.ndarray, given: list[np.ndarray]) -> float | None:
    """The value above which a function is no longer the same function of scaled values; infinite for ReLU.

    Args:
        x: values.
        given: what the function makes of them, multiplied by each of `_FACTORS`.

    Returns:
        None where it is another function of scaled values anywhere.
    """
    if _are_multiples(given):
        return np.inf
    cap = float(given[-1].max(initial=0.0))
    pairs = zip(_FACTORS, given, strict=True)
    is_clipped = all(np.allclose(np.clip(x * factor, 0.0, cap), one, rtol=1e-3) for factor, one in pairs)
    return cap if is_clipped and cap > 0 else None


def _are_multiples(given: list[np.ndarray]) -> bool:
    return all(
        np.allclose(given[0] * factor, one, rtol=1e-3, atol=1e-6 * factor)
        for factor, one in zip(_FACTORS, given, strict=True)
    )


def _bound_of_activation(activation: Callable[[np.ndarray], ArrayLike] | None) -> float | None:
    """As `_bound`, of an activation."""
    if activation is None:
        return np.inf
    x = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    try:
        given = [np.asarray(activation(x * np.float32(factor)), np.float64) for factor in _FACTORS]
    except Exception:  # a custom function may raise anything
        return None
    return _bound(x.astype(np.float64), given)


def _weights(layer: Layer, kind: str) -> list[Any]:
    """The variables of a layer that hold factors, or that must be its own for it to do so."""
    if kind in NORMALIZATIONS:
        named = [layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]
    elif kind == "Embedding":
        named = [layer.embeddings]
    else:
        named = [*kernels_of(layer, kind), layer.bias]
    return [weight for weight in named if weight is not None]


def kernels_of(layer: Layer, kind: str) -> list[Any]:
    """The kernels of a layer, in the order in which they are applied."""
    if kind in SEPARABLE:
        return [layer.depthwise_kernel, layer.pointwise_kernel]
    return [depthwise_kernel(layer) if kind in DEPTHWISE else layer.kernel]


def _axis(layer: Layer, kind: str, rank: int) -> int | None:
    """The axis of a layer's tensors that its channels lie along, counted from 0; None for several."""
    axis = statistics_axis(layer) if kind in NORMALIZATIONS else channel_axis(layer)
    return None if axis is None else axis % rank


def _classes_of(axes: dict[int, np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, int), *axes.values()]))


def _readers(graph: ChannelGraph) -> dict[int, list[Step]]:
    """The calls that read each tensor."""
    readers: dict[int, list[Step]] = {}
    for step in graph.steps:
        for place in step.inputs:
            readers.setdefault(place, []).append(step)
    return readers
