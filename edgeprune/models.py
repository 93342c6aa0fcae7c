"""Two small image classifiers for the demo, the benchmarks and the tests."""

from __future__ import annotations

from typing import Any

from edgeprune import flavor as flavors

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

    Source: https://github.com/mlcommons/tiny, benchmark/training/image_classification (`resnet_v1_eembc`).

    Example:
        >>> resnet8().count_params()
        78378
    """
    keras = flavors.keras_module(flavor)
    layers = keras.layers

    def convolution(x: Any, filters: int, size: int, strides: int, name: str) -> Any:
        return layers.Conv2D(
            filters,
            size,
            strides,
            padding="same",
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4),
            name=name,
        )(x)

    def normalised(x: Any, name: str) -> Any:
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
