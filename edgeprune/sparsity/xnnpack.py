"""What XNNPACK's sparse inference asks of a model, and the changes that give it.

XNNPACK (the CPU kernels of TFLite and LiteRT) skips zero weights only in float models of one shape: a 3x3
stride-2 convolution over three channels after `ZeroPadding2D(1)`; then 1x1 convolutions, depthwise
convolutions with the same padding on every side and a few element-wise layers; then
`GlobalAveragePooling2D(keepdims=True)`. More than two thirds of the weights of the 1x1 convolutions must be
zero, and no x86 processor with AVX takes that path at all.

Sizes matter. Where both sides of its input are odd, a stride-2 `ZeroPadding2D` + 'valid' equals 'same', and
TFLite's converter writes it as 'same', which the sparse path does not take. So the best input size is one less
than a multiple of 32 (223 for 224): there this module can keep the function of any MobileNet, and every
stride-2 depthwise convolution meets an even size.

    for miss in xnnpack_misses(model):
        print(miss)
    model = adapt_for_xnnpack(model)

Source: XNNPACK, `src/subgraph.c` (`xnn_check_nchw_compatibility`, `xnn_subgraph_rewrite_for_nchw`), and
Elsen et al., "Fast Sparse ConvNets", https://arxiv.org/abs/1911.09723.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from edgeprune import flavor, progress

_STEM_KERNELS = (3,)
_DEPTHWISE_KERNELS = (3, 5)
# One more row makes one side even, so that ZeroPadding2D(1) after it is not what 'same' means.
_ROW_OF_ZEROS = ((0, 1), (0, 0))
_ROW = f"ZeroPadding2D({_ROW_OF_ZEROS})"
# Written without underscores, as `flavor.function_name` does.
_ACTIVATIONS = ("linear", "relu", "relu6", "leakyrelu", "elu", "sigmoid")
# Layers that leave no operator in the converted file.
_GONE_AT_INFERENCE = (
    "Identity",
    "Dropout",
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
)
_REMEDIES = {
    "Dense": "put GlobalAveragePooling2D(keepdims=True) before it",
    "Flatten": "use GlobalAveragePooling2D(keepdims=True) in its place",
    "MaxPooling2D": "use a stride-2 DepthwiseConv2D after ZeroPadding2D in its place",
    "AveragePooling2D": "use a stride-2 DepthwiseConv2D after ZeroPadding2D in its place",
    "Concatenate": "use Add in its place",
    "SeparableConv2D": "use DepthwiseConv2D followed by a 1x1 Conv2D in its place",
}
_OUTSIDE = "replace it, or move it before the first convolution or after the global average pooling"


@dataclass(frozen=True)
class XnnpackMiss:
    """One thing that keeps a model off XNNPACK's sparse inference.

    Attributes:
        layer: the name of the layer (the model's own where it is about the whole model).
        kind: the class of the layer.
        problem: what is in the way.
        remedy: the change that would satisfy XNNPACK.
        adaptable: whether `adapt_for_xnnpack(model)` makes the change and keeps the function.
    """

    layer: str
    kind: str
    problem: str
    remedy: str
    adaptable: bool = False

    def __str__(self) -> str:
        """One line: the layer, the problem and the remedy."""
        return f"{self.layer} ({self.kind}): {self.problem}; {self.remedy}"


def xnnpack_misses(model: Any) -> tuple[XnnpackMiss, ...]:
    """List everything that keeps a model off XNNPACK's sparse inference; nested models are looked into.

    Args:
        model: a built Functional or Sequential model of either Keras. It is not touched.

    Returns:
        The misses in the order of the graph; empty when the structure is right. Whether enough weights are
        zero, and whether the processor takes the sparse path, is not looked at.

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
    graph = _Graph(model)
    stems, every_branch = graph.search(graph.inputs, graph.is_stem, graph.consumers)
    first_convolutions = set(stems)
    if not every_branch:
        first_convolutions, _ = graph.search(graph.inputs, graph.has_kernel, graph.consumers)
    misses = {at: graph.stem_miss(at) for at in first_convolutions - stems}
    no_pooling = [at for at in graph.outputs if not graph.search([at], graph.is_end, graph.producers)[1]]
    ends, _ = graph.search(graph.outputs, graph.is_end, graph.producers)
    for at in graph.region(first_convolutions, ends):
        misses[at] = graph.layer_miss(at)
    found = [misses[at] for at in sorted(misses) if misses[at]]
    if not first_convolutions:
        found.append(graph.model_miss())
    found.extend(graph.output_miss(at) for at in no_pooling)
    return tuple(found)


def adapt_for_xnnpack(model: Any, *, exact: bool = True) -> Any:
    """Change a model so that XNNPACK's sparse inference can run it, keeping what it computes.

    Four changes leave the function as it is:

    - the padding ('same', or a lopsided `ZeroPadding2D`) of a 3x3 stride-2 first convolution on an odd size
      becomes `ZeroPadding2D(1)`, after one more row of zeros that keeps the converter from undoing it.
    - that of a stride-2 depthwise convolution on an even size becomes `ZeroPadding2D(2)`, with its 3x3 kernel
      in the corner of a 5x5 kernel of zeros.
    - `GlobalAveragePooling2D()` becomes `GlobalAveragePooling2D(keepdims=True)` followed by a `Reshape`.
    - `AveragePooling2D` over the whole map becomes `GlobalAveragePooling2D(keepdims=True)`.

    What cannot be changed so is left as it is and told in one warning, with the way out.

    Args:
        model: a built Functional or Sequential model of either Keras, before pruning. It is not touched.
        exact: True keeps the function. False also pads evenly where that moves the sampling grid by one
            pixel, as the first convolution of a network at 224 needs: fine-tune the model afterwards.

    Returns:
        A new Functional model of the same Keras, not compiled, with a copy of the weights. Layers keep their
        names; a layer that was added is called after the one it serves. Nested models stay nested.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: the model, or one nested in it, is subclassed or not built, or carries pruning wrappers.

    Example:
        >>> import keras
        >>> layers = keras.layers
        >>> model = keras.Sequential([keras.Input((95, 95, 3)),
        ...     layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        ...     layers.Conv2D(16, 1), layers.GlobalAveragePooling2D(), layers.Dense(10)])
        >>> len(xnnpack_misses(model)), len(xnnpack_misses(adapt_for_xnnpack(model)))
        (2, 0)
    """
    if not flavor.is_model(model):
        raise TypeError(f"adapt_for_xnnpack takes a Keras model, got {type(model).__name__}.")
    wrapped = [layer.name for layer in flavor.layers_of(model) if _unwrapped(layer) is not layer]
    if wrapped:
        raise ValueError(
            f"Layer {wrapped[0]!r} carries a pruning wrapper: adapt the model before `prune_low_magnitude`, "
            "or after `strip_pruning`."
        )
    with progress.status(f"Adapting {model.name} for XNNPACK"):
        adapted = _Adaptation(model, exact).run()
    misses = xnnpack_misses(adapted)
    if misses:
        warnings.warn(
            f"Model {model.name!r} still misses what XNNPACK's sparse inference needs:\n"
            + "\n".join(f"- {miss}" for miss in misses),
            stacklevel=2,
        )
    return adapted


class _Graph:
    """The calls of a model's layers, with the questions XNNPACK asks about each."""

    def __init__(self, model: Any):
        self.model = model
        self.layers = flavor.keras_of(model).layers
        self.calls, self.outputs = flavor.layer_calls(model)
        self.inputs = [at for at, call in enumerate(self.calls) if not call.producers]
        self._consumers: list[list[int]] = [[] for _ in self.calls]
        for at, call in enumerate(self.calls):
            for producer in call.producers:
                self._consumers[producer].append(at)

    def layer(self, at: int) -> Any:
        return _unwrapped(self.calls[at].layer)

    def producers(self, at: int) -> Iterable[int]:
        return self.calls[at].producers

    def consumers(self, at: int) -> Iterable[int]:
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
        layer = self.layer(at)
        return (
            _is_stem_like(layer, self.layers, self.calls[at].input_shapes[0])
            and _activation_name(layer) in _ACTIVATIONS
            and self.is_padded_evenly(at)
            and not self.sampling(at).folds
        )

    def is_end(self, at: int) -> bool:
        return isinstance(self.layer(at), self.layers.GlobalAveragePooling2D) or _pools_whole_map(
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
        return _pairs(self.layer(padding).padding) == ((half, half), (half, half))

    def sampling(self, at: int) -> _Sampling:
        padding = self.zero_padding(at)
        source = at if padding is None else padding
        return _Sampling.of(
            self.layer(at),
            self.calls[at].input_shapes[0],
            None if padding is None else self.layer(padding),
            self.calls[source].input_shapes[0],
        )

    def miss(self, at: int, problem: str, remedy: str, adaptable: bool = False) -> XnnpackMiss:
        if adaptable:
            remedy += " (adapt_for_xnnpack does it and keeps the function)"
        layer = self.layer(at)
        return XnnpackMiss(layer.name, type(layer).__name__, problem, remedy, adaptable)

    def model_miss(self) -> XnnpackMiss:
        return XnnpackMiss(
            self.model.name,
            type(self.model).__name__,
            "no convolution between its inputs and its outputs",
            "the sparse path is for networks that begin with a 3x3 stride-2 Conv2D over three channels",
        )

    def output_miss(self, at: int) -> XnnpackMiss:
        return self.miss(
            at,
            "no GlobalAveragePooling2D on the way to this output",
            "end the convolutions with GlobalAveragePooling2D(keepdims=True)",
        )

    def stem_miss(self, at: int) -> XnnpackMiss:
        """Why the first convolution of a branch is not the one XNNPACK wants."""
        layer = self.layer(at)
        if not _is_stem_like(layer, self.layers, self.calls[at].input_shapes[0]):
            return self.miss(
                at,
                "the first layer with weights is not a 3x3 stride-2 convolution over three channels",
                "begin the network with ZeroPadding2D(1) and Conv2D(filters, 3, strides=2, padding='valid') "
                "on an image of three channels",
            )
        if _activation_name(layer) not in _ACTIVATIONS:
            return self.activation_miss(at)
        return self.padding_miss(at, _STEM_KERNELS)

    def padding_miss(self, at: int, kernels: tuple[int, ...]) -> XnnpackMiss:
        """Why the padding of a first or a depthwise convolution is not the same on every side."""
        sampling, stem = self.sampling(at), kernels == _STEM_KERNELS
        half = self.layer(at).kernel_size[0] // 2
        remedy = f"put ZeroPadding2D({half}) before it, for itself alone, and use padding='valid'"
        if sampling.folds and not stem:
            return self.miss(
                at,
                f"{sampling.describe()}: on odd sizes the converter writes it as 'same'",
                "choose an input size that makes this one even: a multiple of 32, or one less",
            )
        if sampling.folds and sampling.is_even:
            problem = f"{sampling.describe()}: on odd sizes the converter writes it as 'same'"
            return self.miss(at, problem, f"put {_ROW} before its ZeroPadding2D", adaptable=True)
        if sampling.is_even:
            return self.miss(at, "its ZeroPadding2D has other readers", remedy)
        problem = f"{sampling.describe()} is not the same on every side"
        if sampling.kernel(kernels):
            return self.miss(at, problem, remedy, adaptable=True)
        if not sampling.pads:
            return self.miss(at, problem, f"{remedy}, which changes the size of its output")
        if None in sampling.sizes:
            return self.miss(at, problem, f"{remedy}, and give the model's Input a fixed size")
        if sampling.one_smaller().kernel(kernels):
            height, width = sampling.one_smaller().sizes
            remedy += f" (on {height}x{width} adapt_for_xnnpack does it and keeps the function)"
        return self.miss(
            at,
            problem,
            f"{remedy}. Here it moves the sampling grid by one pixel: train it so from the start, or "
            "adapt_for_xnnpack(model, exact=False) and fine-tune",
        )

    def activation_miss(self, at: int) -> XnnpackMiss:
        return self.miss(
            at,
            f"its activation {_activation_name(self.layer(at))!r} is not one of the sparse path",
            "use relu, relu6, leaky_relu, elu or sigmoid",
        )

    def layer_miss(self, at: int) -> XnnpackMiss | None:
        """What is wrong with a call between the first convolution and the global pooling, if anything."""
        layer, layers, call = self.layer(at), self.layers, self.calls[at]
        name = flavor.function_name(layer)
        if name is not None:
            two_images = len(call.input_shapes) == 2
            known = name in _ACTIVATIONS or name == "identity" or name in ("add", "multiply") and two_images
            return None if known else self.miss(at, _NOT_SPARSE, _OUTSIDE)
        if type(layer).__name__ in _GONE_AT_INFERENCE or isinstance(layer, layers.Add | layers.Multiply):
            return None
        if isinstance(layer, layers.LeakyReLU | layers.ELU):
            return None
        if isinstance(layer, layers.ReLU):
            return None if _is_plain_relu(layer) else self.miss(at, "this form of ReLU", "use relu or relu6")
        if isinstance(layer, layers.Activation):
            return None if _activation_name(layer) in _ACTIVATIONS else self.activation_miss(at)
        if isinstance(layer, layers.DepthwiseConv2D):
            return self.depthwise_miss(at)
        if _is_convolution(layer, layers):
            return self.convolution_miss(at)
        if isinstance(layer, layers.ZeroPadding2D):
            return self.zero_padding_miss(at)
        if isinstance(layer, layers.GlobalAveragePooling2D):
            return None if layer.keepdims else self.pooling_miss(at)
        if _pools_whole_map(layer, layers, call.input_shapes[0]):
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
        layer = self.layer(at)
        if not _is_depthwise_like(layer, self.layers):
            return self.miss(
                at,
                f"a depthwise convolution of kernel {layer.kernel_size}, strides {layer.strides}, dilation "
                f"{layer.dilation_rate}, depth multiplier {layer.depth_multiplier}",
                "use kernel 3x3 or 5x5, stride 1 or 2, no dilation and depth multiplier 1",
            )
        if _activation_name(layer) not in _ACTIVATIONS:
            return self.activation_miss(at)
        if layer.padding == "same" and layer.strides == (1, 1):
            return None
        if self.is_padded_evenly(at) and not self.sampling(at).folds:
            return None
        return self.padding_miss(at, _DEPTHWISE_KERNELS)

    def convolution_miss(self, at: int) -> XnnpackMiss | None:
        layer = self.layer(at)
        if _activation_name(layer) not in _ACTIVATIONS:
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
        gives_axes_back = [_is_folded_reshape(call.layer, self.layers) for call in after]
        if all(gives_axes_back) or not self.reaches_pooling(at):
            return self.miss(at, "it drops the image's axes", "use keepdims=True", adaptable=True)
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
        return self.miss(
            at, "its zeros are not read by one depthwise convolution alone", "give each its own ZeroPadding2D"
        )


_NOT_SPARSE = "XNNPACK's sparse inference has no such operator"


@dataclass(frozen=True)
class _Sampling:
    """Which pixels a square convolution's windows lie on.

    Attributes:
        size: the side of the kernel.
        stride: the same along both axes.
        sizes: height and width of the image before any padding.
        padding: "same", or the zeros before and after each axis.
    """

    size: int
    stride: int
    sizes: tuple[int | None, int | None]
    padding: tuple[tuple[int, int], tuple[int, int]] | str

    @classmethod
    def of(cls, layer: Any, shape: tuple, zero_padding: Any | None, unpadded_shape: tuple) -> _Sampling:
        """Of a square convolution on `shape`, which `zero_padding`, if any, made of `unpadded_shape`."""
        size, stride = layer.kernel_size[0], layer.strides[0]
        if layer.padding != "valid":
            return cls(size, stride, tuple(shape[1:3]), layer.padding)
        padding = _pairs(zero_padding.padding) if zero_padding is not None else ((0, 0), (0, 0))
        return cls(size, stride, tuple(unpadded_shape[1:3]), padding)

    @property
    def pads(self) -> bool:
        return self.padding != ((0, 0), (0, 0))

    @property
    def is_even(self) -> bool:
        """Whether it already has half the kernel of zeros on every side, put there by a ZeroPadding2D."""
        half = self.size // 2
        return self.padding == ((half, half), (half, half))

    @property
    def folds(self) -> bool:
        """Whether even padding is what 'same' means here, so that the converter writes it as 'same'."""
        return self.stride == 2 and None not in self.sizes and all(size % 2 for size in self.sizes)

    def describe(self) -> str:
        """The padding in words."""
        at = "x".join("?" if size is None else str(size) for size in self.sizes)
        if not self.pads:
            padding = "'valid'"
        else:
            padding = f"'{self.padding}'" if self.padding == "same" else f"ZeroPadding2D({self.padding})"
        return f"padding {padding} with stride {self.stride} on {at}"

    def one_smaller(self) -> _Sampling:
        height, width = self.sizes
        return _Sampling(self.size, self.stride, (height - 1, width - 1), self.padding)

    def axis(self, axis: int) -> tuple[int, int]:
        """The zeros before the first pixel, and the number of windows."""
        pixels = self.sizes[axis]
        if self.padding == "same":
            # TensorFlow puts the odd zero after the last pixel.
            zeros = max((-(-pixels // self.stride) - 1) * self.stride + self.size - pixels, 0)
            before, after = zeros // 2, zeros - zeros // 2
        else:
            before, after = self.padding[axis]
        return before, (pixels + before + after - self.size) // self.stride + 1

    def offsets(self, kernel: int) -> tuple[int, int]:
        """Where this kernel begins in a larger one which has half its size of zeros on every side."""
        return kernel // 2 - self.axis(0)[0], kernel // 2 - self.axis(1)[0]

    def kernel(self, kernels: tuple[int, ...]) -> int | None:
        """The smallest of the kernels which, evenly padded, can be given weights that compute the same."""
        if None in self.sizes:
            return None
        windows = [(size - 1) // self.stride + 1 for size in self.sizes]
        if windows != [self.axis(0)[1], self.axis(1)[1]]:
            return None
        fitting = (
            kernel
            for kernel in kernels
            if kernel >= self.size and all(0 <= offset <= kernel - self.size for offset in self.offsets(kernel))
        )
        return next(fitting, None)


class _Adaptation:
    """One walk over a model that makes the changes and copies the weights."""

    def __init__(self, model: Any, exact: bool):
        self.model, self.exact = model, exact
        self.layers = flavor.keras_of(model).layers
        self.clones: dict[Any, tuple[Any, Any, tuple[int, int] | None]] = {}
        self.names = {layer.name for layer in flavor.layers_of(model)}
        self.flattened: dict[int, tuple[Any, Any]] = {}

    def run(self) -> Any:
        adapted = flavor.rebuild(self.model, self.call)
        for old, new, offsets in self.clones.values():
            if flavor.is_layer(old) and not flavor.is_model(old):
                new.set_weights(_weights(old, new, offsets))
                if hasattr(new, "finalize_state"):  # preprocessing layers keep values made of their weights
                    new.finalize_state()
        return adapted

    def call(self, layer: Any, args: tuple, kwargs: dict) -> Any:
        """Call the new form of a layer on tensors of the new graph."""
        layers = self.layers
        image = args[0] if args and len(getattr(args[0], "shape", ())) == 4 else None
        if _is_folded_reshape(layer, layers) and args and id(args[0]) in self.flattened:
            return self.flattened[id(args[0])][1]
        if image is not None:
            if _is_stem_like(layer, layers, image.shape):
                return self.convolution(layer, image, _STEM_KERNELS)
            if _is_depthwise_like(layer, layers) and not (layer.padding == "same" and layer.strides == (1, 1)):
                return self.convolution(layer, image, _DEPTHWISE_KERNELS)
            if isinstance(layer, layers.GlobalAveragePooling2D) and not layer.keepdims:
                return self.pooling(layer, image)
            if _pools_whole_map(layer, layers, image.shape):
                return self.new(layers.GlobalAveragePooling2D, layer, layer.name, keepdims=True)(image)
        return self.clone(layer)(*args, **kwargs)

    def convolution(self, layer: Any, image: Any, kernels: tuple[int, ...]) -> Any:
        """A convolution with the same padding on every side where that computes the same (or may not)."""
        producer, tensors = flavor.producer_of(image)
        padding = producer if isinstance(producer, self.layers.ZeroPadding2D) else None
        unpadded = image if padding is None else tensors[0]
        sampling = _Sampling.of(layer, image.shape, padding, unpadded.shape)
        kernel, stem = sampling.kernel(kernels), kernels == _STEM_KERNELS
        may_move = not self.exact and sampling.pads
        undone = sampling.folds and not stem  # the converter would undo it
        settled = sampling.is_even and not sampling.folds
        if undone or settled or (kernel is None and not may_move):
            return self.clone(layer)(image)
        offsets = sampling.offsets(kernel) if kernel else (0, 0)
        kernel = kernel or sampling.size
        source = image if sampling.padding == "same" else unpadded
        if sampling.folds:
            source = self.new(self.layers.ZeroPadding2D, layer, f"{layer.name}_row", padding=_ROW_OF_ZEROS)(source)
        even = self.new(self.layers.ZeroPadding2D, layer, f"{layer.name}_pad", padding=kernel // 2)
        changes = {"kernel_size": (kernel, kernel), "padding": "valid"}
        return self.clone(layer, offsets, **changes)(even(source))

    def pooling(self, layer: Any, image: Any) -> Any:
        pooled = self.clone(layer, keepdims=True)(image)
        shape = (image.shape[-1],)
        flat = self.new(self.layers.Reshape, layer, f"{layer.name}_reshape", target_shape=shape)(pooled)
        self.flattened[id(flat)] = flat, pooled
        return flat

    def clone(self, layer: Any, offsets: tuple[int, int] | None = None, **changes: Any) -> Any:
        """The new form of a layer, one for each form in which a shared layer is called."""
        key = id(layer), offsets, tuple(changes.items())
        if key not in self.clones:
            if flavor.is_model(layer):
                new = _Adaptation(layer, self.exact).run()
            else:
                new = flavor.clone_layer(layer, **changes)
            self.clones[key] = layer, new, offsets
        return self.clones[key][1]

    def new(self, layer_class: type, like: Any, name: str, **config: Any) -> Any:
        """A layer that was not in the model, of the number type of the one it serves."""
        if name != like.name:
            name = next(n for n in _numbered(name) if n not in self.names)
            self.names.add(name)
        return layer_class(name=name, dtype=like.get_config()["dtype"], **config)


def _weights(old: Any, new: Any, offsets: tuple[int, int] | None) -> list[Any]:
    """The weights of a layer for its new form: the kernel put into a larger one of zeros at `offsets`."""
    weights = old.get_weights()
    if offsets is not None and old.kernel_size != new.kernel_size:
        import numpy as np

        kernel, (top, left) = weights[0], offsets
        larger = np.zeros((*new.kernel_size, *kernel.shape[2:]), kernel.dtype)
        larger[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
        weights[0] = larger
    return weights


def _numbered(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(1))


def _unwrapped(layer: Any) -> Any:
    """The layer inside TF-MOT's pruning wrapper, or the layer itself."""
    return layer.layer if type(layer).__name__ == "PruneLowMagnitude" else layer


def _is_convolution(layer: Any, layers: Any) -> bool:
    """Whether it is a Conv2D and not the transposed one, which derives from it in `tf_keras`."""
    return isinstance(layer, layers.Conv2D) and not isinstance(layer, layers.Conv2DTranspose)


def _is_stem_like(layer: Any, layers: Any, shape: tuple) -> bool:
    """Whether it is XNNPACK's first convolution but for its padding."""
    return (
        _is_convolution(layer, layers)
        and (layer.kernel_size, layer.strides, layer.dilation_rate) == ((3, 3), (2, 2), (1, 1))
        and layer.groups == 1
        and len(shape) == 4
        and shape[-1] == 3
    )


def _is_depthwise_like(layer: Any, layers: Any) -> bool:
    """Whether it is a depthwise convolution of the sparse path but for its padding."""
    return (
        isinstance(layer, layers.DepthwiseConv2D)
        and layer.kernel_size in [(size, size) for size in _DEPTHWISE_KERNELS]
        and layer.strides in [(1, 1), (2, 2)]
        and layer.dilation_rate == (1, 1)
        and layer.depth_multiplier == 1
    )


def _pools_whole_map(layer: Any, layers: Any, shape: tuple) -> bool:
    return (
        isinstance(layer, layers.AveragePooling2D)
        and tuple(layer.pool_size) == tuple(shape[1:3])
        and layer.padding == "valid"
    )


def _is_folded_reshape(layer: Any, layers: Any) -> bool:
    """Whether it gives a pooled vector its two axes back, as squeeze-and-excitation does."""
    return isinstance(layer, layers.Reshape) and tuple(layer.target_shape[:2]) == (1, 1)


def _is_plain_relu(layer: Any) -> bool:
    """Whether TFLite has the layer as one operator."""
    leaky = bool(layer.negative_slope)
    return not layer.threshold and (layer.max_value is None or (layer.max_value == 6 and not leaky))


def _activation_name(layer: Any) -> str:
    activation = layer.activation
    name = getattr(activation, "__name__", None) or type(activation).__name__
    return name.lower().replace("_", "")


def _pairs(padding: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)
