"""Where a convolution's windows lie, and what one layer is to XNNPACK's sparse inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edgeprune.types import Layer

STEM_KERNELS = (3,)
DEPTHWISE_KERNELS = (3, 5)
# One more row makes one side even, so that ZeroPadding2D(1) after it is not what 'same' means.
ROW_OF_ZEROS = ((0, 1), (0, 0))
# Written without underscores, as `flavor.function_name` does.
ACTIVATIONS = ("linear", "relu", "relu6", "leakyrelu", "elu", "sigmoid")
_GONE_AT_INFERENCE = (
    "Identity",
    "Dropout",
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
)


@dataclass(frozen=True)
class Sampling:
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
    def of(cls, layer: Layer, shape: tuple, zero_padding: Any | None, unpadded_shape: tuple) -> Sampling:
        """Of a square convolution on `shape`, which `zero_padding`, if any, made of `unpadded_shape`."""
        size, stride = layer.kernel_size[0], layer.strides[0]
        if layer.padding != "valid":
            return cls(size, stride, tuple(shape[1:3]), layer.padding)
        padding = pairs(zero_padding.padding) if zero_padding is not None else ((0, 0), (0, 0))
        return cls(size, stride, tuple(unpadded_shape[1:3]), padding)

    @property
    def pads(self) -> bool:
        """Whether there are any zeros around the image."""
        return self.padding != ((0, 0), (0, 0))

    @property
    def is_even(self) -> bool:
        """Whether it already has half the kernel of zeros on every side, put there by a ZeroPadding2D."""
        half = self.size // 2
        return self.padding == ((half, half), (half, half))

    @property
    def folds(self) -> bool:
        """Whether even padding is what 'same' means here, so that the converter writes it as 'same'."""
        return self.stride == 2 and all(size is not None and size % 2 for size in self.sizes)

    def describe(self) -> str:
        """The padding in words."""
        at = "x".join("?" if size is None else str(size) for size in self.sizes)
        if not self.pads:
            padding = "'valid'"
        else:
            padding = f"'{self.padding}'" if self.padding == "same" else f"ZeroPadding2D({self.padding})"
        return f"padding {padding} with stride {self.stride} on {at}"

    def one_pixel_smaller(self) -> Sampling:
        """The same on an image of one row and one column less."""
        height, width = self._known_sizes
        return Sampling(self.size, self.stride, (height - 1, width - 1), self.padding)

    @property
    def _known_sizes(self) -> tuple[int, int]:
        height, width = self.sizes
        assert height is not None and width is not None, "asked only of images of known size"
        return height, width

    def axis(self, axis: int) -> tuple[int, int]:
        """The zeros before the first pixel, and the number of windows."""
        pixels = self._known_sizes[axis]
        if isinstance(self.padding, str):  # "same": "valid" is the absence of zeros
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
        windows = [(size - 1) // self.stride + 1 for size in self._known_sizes]
        if windows != [self.axis(0)[1], self.axis(1)[1]]:
            return None
        fitting = (
            kernel
            for kernel in kernels
            if kernel >= self.size and all(0 <= offset <= kernel - self.size for offset in self.offsets(kernel))
        )
        return next(fitting, None)


def unwrapped(layer: Layer) -> Any:
    """The layer inside TF-MOT's pruning wrapper, or the layer itself."""
    return layer.layer if type(layer).__name__ == "PruneLowMagnitude" else layer


def is_convolution(layer: Layer, layers: ModuleType) -> bool:
    """Whether it is a Conv2D and not the transposed one, which derives from it in `tf_keras`."""
    return isinstance(layer, layers.Conv2D) and not isinstance(layer, layers.Conv2DTranspose)


def is_stem_like(layer: Layer, layers: ModuleType, shape: tuple) -> bool:
    """Whether it is XNNPACK's first convolution but for its padding."""
    return (
        is_convolution(layer, layers)
        and (layer.kernel_size, layer.strides, layer.dilation_rate) == ((3, 3), (2, 2), (1, 1))
        and layer.groups == 1
        and len(shape) == 4
        and shape[-1] == 3
    )


def is_depthwise_like(layer: Layer, layers: ModuleType) -> bool:
    """Whether it is a depthwise convolution of the sparse path but for its padding."""
    return (
        isinstance(layer, layers.DepthwiseConv2D)
        and layer.kernel_size in [(size, size) for size in DEPTHWISE_KERNELS]
        and layer.strides in [(1, 1), (2, 2)]
        and layer.dilation_rate == (1, 1)
        and layer.depth_multiplier == 1
    )


def pools_whole_map(layer: Layer, layers: ModuleType, shape: tuple) -> bool:
    """Whether it is an average pooling over all pixels of the image."""
    return (
        isinstance(layer, layers.AveragePooling2D)
        and tuple(layer.pool_size) == tuple(shape[1:3])
        and layer.padding == "valid"
    )


def is_folded_reshape(layer: Layer, layers: ModuleType) -> bool:
    """Whether it adds the two axes to a pooled vector again, as squeeze-and-excitation does."""
    return isinstance(layer, layers.Reshape) and tuple(layer.target_shape[:2]) == (1, 1)


def is_identity_at_inference(layer: Layer) -> bool:
    """Whether it leaves no operator in the converted file."""
    return type(layer).__name__ in _GONE_AT_INFERENCE


def is_plain_relu(layer: Layer) -> bool:
    """Whether TFLite has the layer as one operator."""
    leaky = bool(layer.negative_slope)
    return not layer.threshold and (layer.max_value is None or (layer.max_value == 6 and not leaky))


def activation_name(layer: Layer) -> str:
    """The name of the layer's activation, written as in `ACTIVATIONS`."""
    activation = layer.activation
    name = getattr(activation, "__name__", None) or type(activation).__name__
    return name.lower().replace("_", "")


def pairs(padding: Sequence[Sequence[int]]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The padding of a ZeroPadding2D as tuples, which compare by value."""
    (top, bottom), (left, right) = padding
    return (top, bottom), (left, right)
