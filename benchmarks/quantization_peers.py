"""What others make of the nets of `quantization.py`: TensorFlow's converter alone, TF-MOT, litert-quantizer."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from quantization_nets import Data, Net, train

from edgeprune import flavor
from edgeprune.flavor.files import import_tfmot
from edgeprune.output_capture import captured_output


class Absent(Exception):
    """A peer that is not installed, or that cannot quantize the net; the reason is the message."""


def tensorflow_int8(model: Any, samples: np.ndarray, path: Path) -> None:
    """TensorFlow's own post-training quantization, with its defaults."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, captured_output():
        model.export(folder, verbose=False) if flavor.flavor_of(model) == flavor.KERAS_3 else model.export(folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([one[None]] for one in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        path.write_bytes(converter.convert())


def tfmot_model(model: Any) -> Any:
    """A model of `tf_keras` as TF-MOT prepares it for quantization-aware training.

    Raises:
        Absent: TF-MOT refuses it.
    """
    try:
        return import_tfmot().quantization.keras.quantize_model(model)
    except Exception as error:  # of any kind, by the layer that it does not know
        raise Absent(f"TF-MOT: {' '.join(str(error).split())[:160]}") from error


def tfmot_int8(model: Any, net: Net, data: Data, epochs: int, learning_rate: float, seed: int, path: Path) -> None:
    """TF-MOT's quantization-aware training of the same net with the same weights, on `tf_keras`.

    Raises:
        Absent: TF-MOT refuses the net.
    """
    import tensorflow as tf

    twin = net.build(flavor.TF_KERAS)
    twin.set_weights([flavor.array_of(weight) for weight in in_order_of(twin, model)])
    aware = tfmot_model(twin)
    train(aware, data, epochs, learning_rate, seed, "TF-MOT")
    converter = tf.lite.TFLiteConverter.from_keras_model(aware)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with captured_output():
        path.write_bytes(converter.convert())


def in_order_of(twin: Any, model: Any) -> list[Any]:
    """The weights of a net in the order of the same net of the other Keras: layer by layer, as both were built."""
    weights = [weight for layer in model.layers for weight in layer.weights]
    wanted = [weight for layer in twin.layers for weight in layer.weights]
    order = [id(weight) for weight in twin.weights]
    found = {id(new): old for new, old in zip(wanted, weights, strict=True)}
    return [found[number] for number in order]


def litert_quantizer(model: Any, samples: np.ndarray, path: Path) -> None:
    """litert-quantizer's static int8 of the float file, with its min-max ranges.

    Raises:
        Absent: it is not installed, or refuses the file.
    """
    if importlib.util.find_spec("litert_quantizer") is None:
        raise Absent("litert-quantizer is not installed: pip install litert-quantizer")
    import litert_quantizer
    from litert_quantizer import recipe

    import edgeprune as ep

    with tempfile.TemporaryDirectory() as folder, captured_output():
        float_file = Path(folder) / "float.tflite"
        result = ep.export_tflite(model, float_file, verify=False, verbose=False)
        quantizer = litert_quantizer.Quantizer(str(float_file))
        try:
            quantizer.load_quantization_recipe(recipe.static_wi8_ai8())
            measured = quantizer.calibrate({"serving_default": [{result.inputs[0]: one[None]} for one in samples]})
            quantizer.quantize(measured).export_model(str(path), overwrite=True)
        except (AttributeError, ValueError, RuntimeError, KeyError) as error:
            raise Absent(f"litert-quantizer: {type(error).__name__}: {' '.join(str(error).split())[:160]}") from error
