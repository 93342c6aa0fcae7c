"""The four nets of MLPerf Tiny, and a smaller one, for the demo, the benchmarks and the tests.

Source: https://github.com/mlcommons/tiny, benchmark/training, and https://arxiv.org/abs/2106.07597.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edgeprune import flavor as flavors
from edgeprune.types import AnyTensor

# With Keras's own 0.99 the averages lag behind weights that change as fast as under pruning.
BATCH_NORM_MOMENTUM = 0.9


def resnet8(input_shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10, flavor: str = flavors.KERAS_3) -> Any:
    """ResNet-8, MLPerf Tiny's image classifier: three residual stacks of 16, 32 and 64 channels.

    Args:
        input_shape: `(height, width, channels)` of one image; float32 values between 0 and 1 are expected.
        classes: the number of classes.
        flavor: `"keras"` or `"tf_keras"`.

    Returns:
        An uncompiled Functional model which ends in a softmax; 78,378 parameters at the default shape.

    Source: `resnet_v1_eembc` in MLPerf Tiny's image_classification.

    Example:
        >>> resnet8().count_params()
        78378
    """
    keras = flavors.keras_module(flavor)
    layers = keras.layers

    def convolution(x: AnyTensor, filters: int, size: int, strides: int, name: str) -> Any:
        return layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4),
            name=name,
        )(x)

    def normalised(x: AnyTensor, name: str) -> Any:
        return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=name)(x)

    inputs = keras.Input(input_shape, name="image")
    x = convolution(inputs, 16, 3, 1, "stem_conv")
    x = layers.ReLU(name="stem_relu")(normalised(x, "stem_bn"))
    for stack, (filters, strides) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        name = f"stack{stack}"
        y = convolution(x, filters, 3, strides, f"{name}_conv1")
        y = layers.ReLU(name=f"{name}_relu1")(normalised(y, f"{name}_bn1"))
        y = normalised(convolution(y, filters, 3, 1, f"{name}_conv2"), f"{name}_bn2")
        if strides > 1:
            x = convolution(x, filters, 1, strides, f"{name}_shortcut")
        x = layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, activation="softmax", kernel_initializer="he_normal", name="classifier")(x)
    return keras.Model(inputs, outputs, name="resnet8")


def ds_cnn(input_shape: tuple[int, int, int] = (49, 10, 1), classes: int = 12, flavor: str = flavors.KERAS_3) -> Any:
    """DS-CNN, MLPerf Tiny's keyword spotter: a wide convolution, then four depthwise separable ones of 64 channels.

    Args:
        input_shape: `(frames, coefficients, 1)` of one spectrogram, or any picture.
        classes: the number of classes.
        flavor: `"keras"` or `"tf_keras"`.

    Returns:
        An uncompiled Functional model which ends in a softmax; 24,908 parameters at the default shape.

    Example:
        >>> ds_cnn().count_params()
        24908
    """
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    inputs = keras.Input(input_shape, name="spectrogram")
    x = layers.Conv2D(64, (10, 4), strides=2, padding="same", name="stem")(inputs)
    x = layers.Dropout(0.2, name="stem_dropout")(_normalised(layers, x, "stem"))
    for block in range(1, 5):
        x = _depthwise_separable(layers, x, 64, 1, f"block{block}")
    x = layers.Dropout(0.4, name="dropout")(x)
    x = layers.AveragePooling2D(tuple(x.shape[1:3]), name="pool")(x)
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, outputs, name="ds_cnn")


def mobilenet_v1(
    input_shape: tuple[int, int, int] = (96, 96, 3),
    classes: int = 2,
    width: float = 0.25,
    flavor: str = flavors.KERAS_3,
) -> Any:
    """MobileNetV1 at a quarter of its width, MLPerf Tiny's finder of persons in a picture.

    Args:
        input_shape: `(height, width, channels)` of one picture, both sides multiples of 32.
        classes: the number of classes.
        width: by which the 32 to 1024 channels are multiplied.
        flavor: `"keras"` or `"tf_keras"`.

    Returns:
        An uncompiled Functional model which ends in a softmax; 221,794 parameters by default.

    Example:
        >>> mobilenet_v1().count_params()
        221794
    """
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    inputs = keras.Input(input_shape, name="image")
    x = layers.Conv2D(int(32 * width), 3, strides=2, padding="same", name="stem")(inputs)
    x = _normalised(layers, x, "stem")
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * [(512, 1)], (1024, 2), (1024, 1)]
    for number, (filters, strides) in enumerate(blocks, start=1):
        x = _depthwise_separable(layers, x, int(filters * width), strides, f"block{number}")
    x = layers.AveragePooling2D(tuple(x.shape[1:3]), name="pool")(x)
    outputs = layers.Dense(classes, activation="softmax", name="classifier")(layers.Flatten(name="flat")(x))
    return keras.Model(inputs, outputs, name="mobilenet_v1")


def autoencoder(features: int = 640, units: int = 128, bottleneck: int = 8, flavor: str = flavors.KERAS_3) -> Any:
    """MLPerf Tiny's detector of machines that sound wrong: dense layers down to a bottleneck, and back.

    Args:
        features: how many values a slice of a spectrogram has.
        units: the width of the eight other layers.
        bottleneck: the width of the middle one.
        flavor: `"keras"` or `"tf_keras"`.

    Returns:
        An uncompiled Functional model which reconstructs its input; 269,992 parameters by default.

    Example:
        >>> autoencoder().count_params()
        269992
    """
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    inputs = x = keras.Input((features,), name="slice")
    for number, width in enumerate((*4 * [units], bottleneck, *4 * [units]), start=1):
        x = _normalised(layers, layers.Dense(width, name=f"dense{number}")(x), f"dense{number}")
    return keras.Model(inputs, layers.Dense(features, name="reconstruction")(x), name="autoencoder")


def small_cnn(input_shape: tuple[int, int, int] = (28, 28, 1), classes: int = 10, flavor: str = flavors.KERAS_3) -> Any:
    """Two convolutions and two dense layers: a net that trains in seconds.

    Args:
        input_shape: `(height, width, channels)` of one image; float32 values between 0 and 1 are expected.
        classes: the number of classes.
        flavor: `"keras"` or `"tf_keras"`.

    Returns:
        An uncompiled Sequential model which ends in a softmax.

    Example:
        >>> small_cnn().output_shape
        (None, 10)
    """
    keras = flavors.keras_module(flavor)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape, name="image"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu", name="conv2"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(classes, activation="softmax", name="classifier"),
        ],
        name="small_cnn",
    )


def _depthwise_separable(layers: ModuleType, x: AnyTensor, filters: int, strides: int, name: str) -> Any:
    x = layers.DepthwiseConv2D(3, strides, padding="same", name=f"{name}_depthwise")(x)
    x = _normalised(layers, x, f"{name}_depthwise")
    return _normalised(layers, layers.Conv2D(filters, 1, name=f"{name}_pointwise")(x), f"{name}_pointwise")


def _normalised(layers: ModuleType, x: AnyTensor, name: str) -> Any:
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
