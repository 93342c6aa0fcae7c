"""What keeps a model off XNNPACK's sparse inference: one walk over its graph, a line for each such layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edgeprune import flavor
from edgeprune.sparsity.xnnpack import geometry
from edgeprune.types import Model

_ROW = f"ZeroPadding2D({geometry.ROW_OF_ZEROS})"
_REMEDIES = {
    "Dense": "put GlobalAveragePooling2D(keepdims=True) before it",
    "Flatten": "use GlobalAveragePooling2D(keepdims=True) in its place",
    "MaxPooling2D": "use a stride-2 DepthwiseConv2D after ZeroPadding2D in its place",
    "AveragePooling2D": "use a stride-2 DepthwiseConv2D after ZeroPadding2D in its place",
    "Concatenate": "use Add in its place",
    "SeparableConv2D": "use DepthwiseConv2D followed by a 1x1 Conv2D in its place",
}
_OUTSIDE = "replace it, or move it before the first convolution or after the global average pooling"
# Functions that leave no operator in the converted file.
_GONE = ("identity", "copy")
_NOT_SPARSE = "XNNPACK's sparse inference has no such operator"


@dataclass(frozen=True)
class XnnpackMiss:
    """One thing that keeps a model off XNNPACK's sparse inference.

    Attributes:
        layer: the name of the layer (the model's own where it is about the whole model).
        kind: the class of the layer.
        problem: what prevents it.
        remedy: the change that would satisfy XNNPACK.
        adaptable: whether `adapt_for_xnnpack(model)` makes the change and keeps the function.
        tolerated: whether `PruneForLatencyOnXNNPack` only warns of it, since TF-MOT's policy accepts it.
    """

    layer: str
    kind: str
    problem: str
    remedy: str
    adaptable: bool = False
    tolerated: bool = False

    def __str__(self) -> str:
        """One line: the layer, the problem and the remedy."""
        return f"{self.layer} ({self.kind}): {self.problem}; {self.remedy}"


@dataclass(frozen=True)
class MissesByPlace:
    """What keeps a model off XNNPACK's sparse inference, by the place in its graph.

    Attributes:
        start: of the first convolutions.
        middle: of the layers between them and the last pooling, in the order of the graph.
        end: outputs that no global pooling leads to.
    """

    start: tuple[XnnpackMiss, ...]
    middle: tuple[XnnpackMiss, ...]
    end: tuple[XnnpackMiss, ...]

    @property
    def all(self) -> tuple[XnnpackMiss, ...]:
        """All of them, from the first convolutions to the outputs."""
        return self.start + self.middle + self.end


def xnnpack_misses(model: Model) -> tuple[XnnpackMiss, ...]:
    """List everything that keeps a model off XNNPACK's sparse inference; nested models are looked into.

    Args:
        model: a built Functional or Sequential model of either Keras. It is not touched.

    Returns:
        The misses, from the first convolutions to the outputs; empty when the structure is right. Whether enough
        weights are zero, and whether the processor has the sparse path, is not checked.

    Raises:
        ValueError: the model, or one nested in it, is subclassed or not built.

    Example:
        >>> import keras
        >>> layers = keras.layers
        >>> model = keras.Sequential([keras.Input((97, 97, 3)), layers.Rescaling(1 / 255),
        ...     layers.Conv2D(8, 3, strides=2, padding="same", name="stem"),
        ...     layers.MaxPooling2D(name="pool"), layers.GlobalAveragePooling2D(name="gap")])
        >>> [(miss.layer, miss.adaptable) for miss in xnnpack_misses(model)]
        [('stem', True), ('pool', False), ('gap', True)]
    """
    return misses_by_place(model).all


def misses_by_place(model: Model) -> MissesByPlace:
    """As `xnnpack_misses`, by the place in the graph."""
    graph = _Graph(model)
    stems, every_branch = graph.search(graph.inputs, graph.is_stem, graph.consumers)
    first_convolutions = set(stems)
    if not every_branch:
        first_convolutions, _ = graph.search(graph.inputs, graph.has_kernel, graph.consumers)
    no_pooling = [at for at in graph.outputs if not graph.search([at], graph.is_end, graph.producers)[1]]
    ends, _ = graph.search(graph.outputs, graph.is_end, graph.producers)
    region = graph.region(first_convolutions, ends)
    start = [graph.stem_miss(at) for at in sorted(first_convolutions - stems - set(region))]
    return MissesByPlace(
        start=tuple(start) if first_convolutions else (graph.model_miss(),),
        middle=tuple(filter(None, map(graph.layer_miss, region))),
        end=tuple(map(graph.output_miss, no_pooling)),
    )


class _Graph:
    """The calls of a model's layers, with the questions XNNPACK asks about each."""

    def __init__(self, model: Model):
        self.model = model
        self.layers = flavor.keras_of(model).layers
        self.calls, self.outputs = flavor.layer_calls(model)
        self.inputs = [at for at, call in enumerate(self.calls) if not call.producers]
        self._consumers: list[list[int]] = [[] for _ in self.calls]
        for at, call in enumerate(self.calls):
            for producer in call.producers:
                self._consumers[producer].append(at)

    def layer(self, at: int) -> Any:
        """The layer of a call, without TF-MOT's pruning wrapper."""
        return geometry.unwrapped(self.calls[at].layer)

    def producers(self, at: int) -> Iterable[int]:
        """The calls that a call reads."""
        return self.calls[at].producers

    def consumers(self, at: int) -> Iterable[int]:
        """The calls that read a call."""
        return self._consumers[at]

    def search(
        self, starts: Iterable[int], stop: Callable[[int], bool], following: Callable[[int], Iterable[int]]
    ) -> tuple[set[int], bool]:
        """The first calls along every branch where `stop` holds, and whether every branch has one."""
        to_visit, found, every_branch = list(starts), set(), True
        visited = set(to_visit)
        while to_visit:
            at = to_visit.pop()
            if stop(at):
                found.add(at)
                continue
            every_branch &= bool(following(at))
            to_visit.extend(set(following(at)) - visited)
            visited.update(following(at))
        return found, every_branch

    def region(self, starts: Iterable[int], ends: set[int]) -> list[int]:
        """The calls after the first convolutions, up to the global pooling or where images end."""
        to_visit = [after for at in starts for after in self.consumers(at)]
        visited = set()
        while to_visit:
            at = to_visit.pop()
            if at not in visited and all(len(shape) == 4 for shape in self.calls[at].input_shapes):
                visited.add(at)
                to_visit.extend([] if at in ends else self.consumers(at))
        return sorted(visited)

    def has_kernel(self, at: int) -> bool:
        """Whether the layer is one a network begins with: a convolution or a dense layer."""
        return any(hasattr(self.layer(at), name) for name in ("kernel", "depthwise_kernel"))

    def is_stem(self, at: int) -> bool:
        """Whether the call is the first convolution that XNNPACK needs."""
        layer = self.layer(at)
        return (
            geometry.is_stem_like(layer, self.layers, self.calls[at].input_shapes[0])
            and geometry.activation_name(layer) in geometry.ACTIVATIONS
            and self.is_padded_evenly(at)
            and not self.sampling(at).folds
        )

    def is_end(self, at: int) -> bool:
        """Whether the call is a pooling over the whole map."""
        return isinstance(self.layer(at), self.layers.GlobalAveragePooling2D) or geometry.pools_whole_map(
            self.layer(at), self.layers, self.calls[at].input_shapes[0]
        )

    def zero_padding(self, at: int) -> int | None:
        """Where the `ZeroPadding2D` that feeds a call is."""
        producers = self.calls[at].producers
        if len(producers) == 1 and isinstance(self.layer(producers[0]), self.layers.ZeroPadding2D):
            return producers[0]
        return None

    def is_padded_evenly(self, at: int) -> bool:
        """Whether a 'valid' convolution has a ZeroPadding2D to itself, of half its kernel on every side."""
        layer, padding = self.layer(at), self.zero_padding(at)
        if layer.padding != "valid" or padding is None or len(self._consumers[padding]) != 1:
            return False
        half = layer.kernel_size[0] // 2
        return geometry.pairs(self.layer(padding).padding) == ((half, half), (half, half))

    def sampling(self, at: int) -> geometry.Sampling:
        """Where the windows of a convolution lie, with the ZeroPadding2D before it."""
        padding = self.zero_padding(at)
        source = at if padding is None else padding
        return geometry.Sampling.of(
            self.layer(at),
            self.calls[at].input_shapes[0],
            None if padding is None else self.layer(padding),
            self.calls[source].input_shapes[0],
        )

    def miss(
        self, at: int, problem: str, remedy: str, *, adaptable: bool = False, tolerated: bool = False
    ) -> XnnpackMiss:
        """A miss of the layer of a call."""
        if adaptable:
            remedy += " (adapt_for_xnnpack does it; the outputs do not change)"
        layer = self.layer(at)
        return XnnpackMiss(layer.name, type(layer).__name__, problem, remedy, adaptable, tolerated)

    def model_miss(self) -> XnnpackMiss:
        """That the model has no convolution to begin with."""
        return XnnpackMiss(
            self.model.name,
            type(self.model).__name__,
            "no convolution between its inputs and its outputs",
            "the sparse path is for networks that begin with a 3x3 stride-2 Conv2D over three channels",
        )

    def output_miss(self, at: int) -> XnnpackMiss:
        """That an output is reached without a global pooling."""
        return self.miss(
            at,
            "no GlobalAveragePooling2D before this output",
            "end the convolutions with GlobalAveragePooling2D(keepdims=True)",
        )

    def stem_miss(self, at: int) -> XnnpackMiss:
        """Why the first convolution of a branch is not the one XNNPACK needs."""
        layer = self.layer(at)
        if not geometry.is_stem_like(layer, self.layers, self.calls[at].input_shapes[0]):
            return self.miss(
                at,
                "the first layer with weights is not a 3x3 stride-2 convolution over three channels",
                "begin the network with ZeroPadding2D(1) and Conv2D(filters, 3, strides=2, padding='valid') "
                "on an image of three channels",
            )
        if geometry.activation_name(layer) not in geometry.ACTIVATIONS:
            return self.activation_miss(at)
        return self.padding_miss(at, geometry.STEM_KERNELS)

    def padding_miss(self, at: int, kernels: tuple[int, ...]) -> XnnpackMiss:
        """Why the padding of a first or a depthwise convolution is not the same on every side."""
        sampling, stem = self.sampling(at), kernels == geometry.STEM_KERNELS
        half = self.layer(at).kernel_size[0] // 2
        remedy = f"put ZeroPadding2D({half}) before it, for itself alone, and use padding='valid'"
        if sampling.folds and not stem:
            return self.miss(
                at,
                f"{sampling.describe()}: on odd sizes the converter writes it as 'same'",
                "choose an input size that makes this one even: a multiple of 32, or one less",
                tolerated=sampling.is_even,
            )
        if sampling.folds and sampling.is_even:
            problem = f"{sampling.describe()}: on odd sizes the converter writes it as 'same'"
            remedy = f"put {_ROW} before its ZeroPadding2D"
            return self.miss(at, problem, remedy, adaptable=True, tolerated=True)
        if sampling.is_even:
            return self.miss(at, "its ZeroPadding2D has other readers", remedy, tolerated=True)
        problem = f"{sampling.describe()} is not the same on every side"
        if sampling.kernel(kernels):
            return self.miss(at, problem, remedy, adaptable=True)
        if not sampling.pads:
            return self.miss(at, problem, f"{remedy}, which changes the size of its output")
        if None in sampling.sizes:
            return self.miss(at, problem, f"{remedy}, and use a fixed size in the model's Input")
        if sampling.one_pixel_smaller().kernel(kernels):
            height, width = sampling.one_pixel_smaller().sizes
            remedy += f" (on {height}x{width} adapt_for_xnnpack does it; the outputs do not change)"
        return self.miss(
            at,
            problem,
            f"{remedy}. Here it moves the sampling grid by one pixel: train it so from the start, or "
            "adapt_for_xnnpack(model, exact=False) and fine-tune",
        )

    def activation_miss(self, at: int) -> XnnpackMiss:
        """That the sparse path has no such activation."""
        return self.miss(
            at,
            f"its activation {geometry.activation_name(self.layer(at))!r} is not one of the sparse path",
            "use relu, relu6, leaky_relu, elu or sigmoid",
            tolerated=not isinstance(self.layer(at), self.layers.Activation),
        )

    def layer_miss(self, at: int) -> XnnpackMiss | None:
        """What is wrong with a call between the first convolution and the global pooling, if anything."""
        layer, layers, call = self.layer(at), self.layers, self.calls[at]
        name = flavor.function_name(layer)
        if name is not None:
            if name in (*geometry.ACTIVATIONS, *_GONE) or name in ("add", "multiply") and len(call.input_shapes) == 2:
                return None
            return self.miss(at, _NOT_SPARSE, _OUTSIDE, tolerated=name in ("add", "subtract", "multiply"))
        if geometry.is_identity_at_inference(layer) or isinstance(layer, layers.Add | layers.Multiply):
            return None
        if isinstance(layer, layers.LeakyReLU | layers.ELU):
            return None
        if isinstance(layer, layers.ReLU):
            if geometry.is_plain_relu(layer):
                return None
            return self.miss(at, "this form of ReLU", "use relu or relu6", tolerated=True)
        if isinstance(layer, layers.Activation):
            return None if geometry.activation_name(layer) in geometry.ACTIVATIONS else self.activation_miss(at)
        if isinstance(layer, layers.DepthwiseConv2D):
            return self.depthwise_miss(at)
        if geometry.is_convolution(layer, layers):
            return self.convolution_miss(at)
        if isinstance(layer, layers.ZeroPadding2D):
            return self.zero_padding_miss(at)
        if isinstance(layer, layers.GlobalAveragePooling2D):
            return None if layer.keepdims else self.pooling_miss(at)
        if geometry.pools_whole_map(layer, layers, call.input_shapes[0]):
            remedy = "use GlobalAveragePooling2D(keepdims=True) in its place"
            return self.miss(at, "it is not a global pooling to XNNPACK", remedy, adaptable=True)
        if isinstance(layer, layers.BatchNormalization):
            axis = layer.axis if isinstance(layer.axis, int) else list(layer.axis)[0]
            return None if axis in (-1, 3) else self.miss(at, f"it normalizes axis {axis}", "use axis=-1")
        if isinstance(layer, layers.UpSampling2D) and layer.interpolation == "bilinear":
            return None
        if isinstance(layer, layers.UpSampling2D):
            problem = f"its interpolation is {layer.interpolation!r}"
            return self.miss(at, problem, "use interpolation='bilinear'")
        return self.miss(at, _NOT_SPARSE, _REMEDIES.get(type(layer).__name__, _OUTSIDE))

    def depthwise_miss(self, at: int) -> XnnpackMiss | None:
        """What is wrong with a depthwise convolution, if anything."""
        layer = self.layer(at)
        if not geometry.is_depthwise_like(layer, self.layers):
            return self.miss(
                at,
                f"a depthwise convolution of kernel {layer.kernel_size}, strides {layer.strides}, dilation "
                f"{layer.dilation_rate}, depth multiplier {layer.depth_multiplier}",
                "use kernel 3x3 or 5x5, stride 1 or 2, no dilation and depth multiplier 1",
            )
        if geometry.activation_name(layer) not in geometry.ACTIVATIONS:
            return self.activation_miss(at)
        if layer.padding == "same" and layer.strides == (1, 1):
            return None
        if self.is_padded_evenly(at) and not self.sampling(at).folds:
            return None
        return self.padding_miss(at, geometry.DEPTHWISE_KERNELS)

    def convolution_miss(self, at: int) -> XnnpackMiss | None:
        """What is wrong with a convolution after the first, if anything."""
        layer = self.layer(at)
        if geometry.activation_name(layer) not in geometry.ACTIVATIONS:
            return self.activation_miss(at)
        one = (1, 1)
        if (layer.kernel_size, layer.strides, layer.dilation_rate, layer.groups) == (one, one, one, 1):
            return None
        return self.miss(
            at,
            f"a convolution of kernel {layer.kernel_size}, strides {layer.strides}, groups {layer.groups}",
            "use a depthwise convolution and a 1x1 Conv2D of stride 1 in its place",
        )

    def pooling_miss(self, at: int) -> XnnpackMiss:
        """A pooling that drops the image's axes can keep them where nothing of the sparse path follows."""
        after = [self.calls[consumer] for consumer in self._consumers[at]]
        gives_axes_back = [geometry.is_folded_reshape(call.layer, self.layers) for call in after]
        is_last = not self.reaches_pooling(at)
        if all(gives_axes_back) or is_last:
            problem, remedy = "it drops the image's axes", "use keepdims=True"
            return self.miss(at, problem, remedy, adaptable=True, tolerated=is_last)
        remedy = "use keepdims=True, and 1x1 Conv2D in the place of Dense after it"
        return self.miss(at, "it drops the image's axes inside the sparse path", remedy)

    def reaches_pooling(self, at: int) -> bool:
        """Whether another global pooling comes after this one."""
        return bool(self.search(self._consumers[at], self.is_end, self.consumers)[0])

    def zero_padding_miss(self, at: int) -> XnnpackMiss | None:
        """Zeros become part of the one depthwise convolution that reads them, which says what it misses."""
        consumers = self._consumers[at]
        if len(consumers) == 1 and isinstance(self.layer(consumers[0]), self.layers.DepthwiseConv2D):
            return None
        problem = "its zeros are not read by one depthwise convolution alone"
        return self.miss(at, problem, "add a ZeroPadding2D for each", tolerated=True)
