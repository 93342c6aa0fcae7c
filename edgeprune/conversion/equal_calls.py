"""Have layers compute the same with operators that more devices have, for as long as a model is traced.

Keras 3 writes some layers so that the converter makes of them operators which microcontrollers and NPUs lack: an
`Embedding` counts negative indices from the end, `UpSampling2D` repeats rows and columns. And a recurrent layer is a
loop, which cannot be calibrated. Here such a layer's `call` stands aside for an equal computation; the layer itself
and its weights are not changed, wherever in the model it is. The written file is compared with the model, as always.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from edgeprune import flavor
from edgeprune.conversion import categories
from edgeprune.schemes import CALIBRATED
from edgeprune.types import Layer, Model, TfTensor

# A longer sequence is not unrolled: tracing and converting take a minute at this length, and grow with its square.
LONGEST_UNROLLED = 500


@contextlib.contextmanager
def replaced(model: Model, quantization: str | None) -> Iterator[list[tuple[Any, int]]]:
    """While the body runs, layers of a model compute as devices can.

    Args:
        model: a built model of either Keras.
        quantization: what the model is converted to.

    Yields:
        The layers that were unrolled, each with its number of steps; filled when the model is called.
    """
    unrolled: list[tuple[Any, int]] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(categories.compared(model))
        for layer in flavor.layers_of(model):
            call = _equal_call(layer) or _recurrent_call(layer, quantization, unrolled)
            if call is not None:
                stack.enter_context(flavor.overridden(layer, call=call))
        yield unrolled


def refuse_stateful(model: Model) -> None:
    """Refuse a model with layers that carry a state from call to call.

    Raises:
        ValueError: names the layers.
    """
    names = flavor.layer_names(model)
    stateful = [
        repr(names[id(layer)]) for layer in flavor.layers_of(model) if flavor.is_recurrent(layer) and layer.stateful
    ]
    if stateful:
        raise ValueError(
            f"Model {model.name!r} has layers with stateful=True, {', '.join(stateful)}, whose state a .tflite file "
            "does not carry. Build them with stateful=False; to continue a sequence, make the states inputs and "
            "outputs of the model, with initial_state= and return_state=True."
        )


def unrolled_notes(model: Model, unrolled: list[tuple[Any, int]], quantization: str | None) -> list[str]:
    """What the user should know of the layers that were unrolled: nothing, or one sentence."""
    names = flavor.layer_names(model)
    which = dict.fromkeys(f"{names[id(layer)]!r} into {steps} steps" for layer, steps in unrolled)
    if not which:
        return []
    return [
        f"A loop cannot be {quantization}, so recurrent layers were unrolled: {', '.join(which)}. The file, the memory "
        "it needs and the time to convert grow with the sequence; as float32 the loop is kept."
    ]


def _equal_call(layer: Layer) -> Callable[..., Any] | None:
    """The equal computation of a layer that reaches the converter as operators which devices lack."""
    layers = flavor.keras_of(layer).layers
    for name, make in _EQUAL.items():
        # A subclass that has a call of its own computes something else.
        if type(layer).call is getattr(layers, name).call:
            return make(layer)
    return None


def _embedding(layer: Layer) -> Callable[..., Any] | None:
    """One GATHER, whose indices are counted from 0."""
    import tensorflow as tf

    if flavor.is_quantized_by_keras(layer):
        return None

    def call(inputs: TfTensor) -> Any:
        indices = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
        return tf.cast(tf.gather(tf.convert_to_tensor(layer.embeddings), indices), layer.compute_dtype)

    return call


def _elu(layer: Layer) -> Callable[..., Any] | None:
    """What is positive and the rest apart: with a comparison, as Keras has it, no int8 file computes it in integers."""
    import tensorflow as tf

    alpha = float(layer.alpha)
    if alpha == 1:
        return None

    def call(x: TfTensor) -> Any:
        positive = tf.nn.relu(x)
        return positive + alpha * tf.nn.elu(x - positive)  # tf.minimum(x, 0) would narrow the range of x to its own

    return call


def _repeat_vector(layer: Layer) -> Callable[..., Any]:
    import tensorflow as tf

    return lambda inputs: _enlarged(inputs[:, tf.newaxis, tf.newaxis, :], layer.n, 1)[:, :, 0]


def _up_sampling_1d(layer: Layer) -> Callable[..., Any]:
    import tensorflow as tf

    return lambda inputs: _enlarged(inputs[:, :, tf.newaxis, :], layer.size, 1)[:, :, 0]


def _up_sampling_2d(layer: Layer) -> Callable[..., Any] | None:
    """RESIZE_NEAREST_NEIGHBOR; other interpolations are resized anyway."""
    if layer.interpolation != "nearest":
        return None
    return lambda images: _channels_last(layer, images, lambda images: _enlarged(images, *layer.size))


def _up_sampling_3d(layer: Layer) -> Callable[..., Any]:
    import tensorflow as tf

    def enlarged(volumes: TfTensor) -> Any:
        batch, depth, height, width, channels = volumes.shape
        depths, heights, widths = layer.size
        deep = _enlarged(tf.reshape(volumes, (batch, depth, height * width, channels)), depths, 1)
        wide = _enlarged(tf.reshape(deep, (batch * depth * depths, height, width, channels)), heights, widths)
        return tf.reshape(wide, (batch, depth * depths, height * heights, width * widths, channels))

    return lambda volumes: _channels_last(layer, volumes, enlarged)


def _enlarged(images: TfTensor, rows: int, columns: int) -> Any:
    """Images `(batch, height, width, channels)` with each row and column repeated."""
    import tensorflow as tf

    _, height, width, _ = images.shape
    return tf.image.resize(images, (height * rows, width * columns), "nearest")


def _channels_last(layer: Layer, images: TfTensor, function: Callable[[Any], Any]) -> Any:
    import tensorflow as tf

    if layer.data_format == "channels_last":
        return function(images)
    spatial = range(2, len(images.shape))
    last = function(tf.transpose(images, (0, *spatial, 1)))
    return tf.transpose(last, (0, len(images.shape) - 1, *range(1, len(images.shape) - 1)))


_EQUAL = {
    "ELU": _elu,
    "Embedding": _embedding,
    "RepeatVector": _repeat_vector,
    "UpSampling1D": _up_sampling_1d,
    "UpSampling2D": _up_sampling_2d,
    "UpSampling3D": _up_sampling_3d,
}


def _recurrent_call(
    layer: Layer, quantization: str | None, unrolled: list[tuple[Any, int]]
) -> Callable[..., Any] | None:
    """A recurrent layer's call: in a loop where that can be, as one operator or unrolled where it cannot.

    A file with the operator UNIDIRECTIONAL_SEQUENCE_LSTM keeps the state from one run to the next. A loop starts
    from zeros each time and is as fast in floats, so the operator is used only where loops are impossible: for int8.
    """
    if not flavor.is_recurrent(layer):
        return None
    own = layer.call

    def steps_of(sequences: object) -> int | None:
        return flavor.flatten(sequences, layer)[0].shape[1]

    def looped(sequences: object, **options: object) -> Any:
        with flavor.step_by_step(layer, unroll=layer.unroll):
            return own(sequences, **options)

    def stepwise(sequences: object, **options: object) -> Any:
        steps = steps_of(sequences)
        if steps is None or steps > LONGEST_UNROLLED:
            return looped(sequences, **options)
        if not layer.unroll:
            unrolled.append((layer, steps))
        with flavor.step_by_step(layer, unroll=True):
            return own(sequences, **options)

    def fused(
        sequences: TfTensor, mask: TfTensor | None = None, initial_state: object = None, **options: object
    ) -> Any:
        if mask is not None or initial_state is not None or isinstance(sequences, list | tuple):
            return stepwise(sequences, mask=mask, initial_state=initial_state, **options)
        return _fused_lstm(layer, sequences)

    if quantization not in CALIBRATED:
        return looped
    return fused if quantization == "int8" and flavor.is_plain_lstm(layer) else stepwise


def _fused_lstm(layer: Layer, sequences: TfTensor) -> Any:
    """An LSTM in the form in which the converter recognises the one of `tf_keras`: an annotated function.

    Source: tensorflow/compiler/mlir/lite/transforms/prepare_composite_functions_tf.cc and utils/lstm_utils.cc
    """
    import tensorflow as tf

    def lstm(
        inputs: TfTensor,
        output: TfTensor,
        carry: TfTensor,
        kernel: TfTensor,
        recurrent_kernel: TfTensor,
        bias: TfTensor,
    ) -> Any:
        def step(state: tuple[TfTensor, TfTensor], x: TfTensor) -> Any:
            output, carry = state
            gates = tf.matmul(x, kernel) + tf.matmul(output, recurrent_kernel) + bias
            i, f, candidate, o = tf.split(gates, 4, axis=1)
            carry = tf.sigmoid(f) * carry + tf.sigmoid(i) * tf.tanh(candidate)
            return tf.sigmoid(o) * tf.tanh(carry), carry

        outputs, carries = tf.scan(step, tf.transpose(inputs, (1, 0, 2)), (output, carry))
        # The last result stands where tf_keras returns the name of its kernel.
        return outputs[-1], tf.transpose(outputs, (1, 0, 2)), outputs[-1], carries[-1], tf.constant(0.0)

    recognised = {"api_implements": f"lstm_{layer.name}", "time_major": False, "go_backwards": False}
    function = tf.function(lstm, autograph=False, experimental_attributes=recognised)
    cell = layer.cell
    weights = (
        tf.cast(tf.convert_to_tensor(weight), sequences.dtype)
        for weight in (cell.kernel, cell.recurrent_kernel, cell.bias)
    )
    start = tf.zeros((sequences.shape[0], cell.units), sequences.dtype)
    if layer.go_backwards:
        sequences = tf.reverse(sequences, (1,))
    last, outputs, *_ = function(sequences, start, start, *weights)
    return outputs if layer.return_sequences else last
