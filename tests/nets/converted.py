"""Tiny models of either Keras, and a bare conversion that shares nothing with edgeprune's own."""

import contextlib
import io
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

FLAVORS = ("keras", "tf_keras")


def convert(model, path, quantization=None, samples=None, sparse=False):
    """Write `model`, which has a static batch of one, to `path` with TensorFlow's converter."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if quantization or sparse:
        converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantization else []
        if sparse:
            converter.optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path.write_bytes(converter.convert())
    return path


def set_zeros(model, share, seed=0):
    """Give every kernel exactly `round(share * size)` zeros, and every other weight values of its own."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) >= 2 and "bias" not in weight.name:
            values = generator.uniform(0.2, 1.0, weight.shape) * generator.choice([-1, 1], weight.shape)
            values.flat[generator.permutation(values.size)[: round(share * values.size)]] = 0
        else:
            values = generator.uniform(0.5, 1.5, weight.shape)
        weight.assign(values.astype("float32"))
    return model


def small_cnn(keras):
    """Convolutions of every common kind with batch normalisation to be folded, 10 classes."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(batch_shape=(1, 12, 12, 3), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem"),
            layers.BatchNormalization(name="stem_norm"),
            layers.ReLU(name="stem_relu"),
            layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
            layers.BatchNormalization(name="depthwise_norm"),
            layers.ReLU(name="depthwise_relu"),
            layers.SeparableConv2D(12, 3, padding="same", name="separable"),
            layers.Conv2DTranspose(5, 3, strides=2, name="transposed"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, name="head"),
        ]
    )


def images(count=12, seed=1):
    return np.random.default_rng(seed).normal(size=(count, 12, 12, 3)).astype("float32")
