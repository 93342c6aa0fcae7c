"""Say in a Keras user's words why a conversion failed, and which layer is behind an operator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgeprune import flavor
from edgeprune.conversion.equal_calls import LONGEST_UNROLLED
from edgeprune.export.preprocessing_split import lookup_names
from edgeprune.tflite.float_islands import float_islands
from edgeprune.tflite.graph import operators, tensors, type_name, unpacked
from edgeprune.types import Model

_NO_KERNEL_16X8 = re.compile(r"not yet supported for op: '(\w+)'")
_CUSTOM = "custom operator "
_RUNTIME_FAULTS = {
    "BATCH_MATMUL": (
        "in int8, LiteRT 2.0.2 to 2.1.2 and the tf.lite.Interpreter of TensorFlow 2.21 compute wrong values, as their "
        "XNNPACK does, which is on by default. LiteRT up to 1.4 and from 2.1.3 on is right; on the others leave "
        "XNNPACK off, or use another quantization."
    ),
    "DIV": (
        "in int8, LiteRT up to 1.2 does not run it, and the tf.lite.Interpreter of TensorFlow 2.21 may stop at it with "
        "an error. LiteRT from 1.4 on runs it."
    ),
}
_LOOP_FORMATS = ("dynamic", "float16")


class ConversionError(ValueError):
    """The model cannot be converted as asked; the message names the layer and how to fix it."""


class LoopError(ConversionError):
    """A loop prevents calibration.

    Args:
        loops: the layers behind the loops, in words.
        quantization: what was requested.
        formats: what a model with loops can be exported as.
    """

    def __init__(
        self, loops: list[str], quantization: str | None, formats: Iterable[str | None] = (None, *_LOOP_FORMATS)
    ):
        """Compose the message."""
        self._loops, self._quantization = loops, quantization
        self._formats = [one for one in formats if one is None or one in _LOOP_FORMATS]
        *others, last = map(repr, self._formats or [None])
        ways = f"{', '.join(others)} or {last}" if others else last
        super().__init__(
            f"quantization={quantization!r} is not possible for a model with a loop: {', '.join(loops)}. Recurrent "
            f"layers of Keras are unrolled where the sequence has a fixed length of at most {LONGEST_UNROLLED} steps: "
            f"shorten it{f', or use quantization={ways}' if self._formats else ''}."
        )

    def among(self, formats: Iterable[str | None]) -> LoopError:
        """The same error, which advises no format but these."""
        return LoopError(self._loops, self._quantization, [one for one in self._formats if one in tuple(formats)])


@dataclass(frozen=True)
class Unsupported:
    """An operation that the format has no operator for.

    Attributes:
        operation: TensorFlow's name of it.
        origin: the layer that brought it, in words.
        needs_flex: whether TensorFlow's own kernel could run it on the device.
    """

    operation: str
    origin: str
    needs_flex: bool


class OperatorError(ConversionError):
    """Operations of a model have no built-in operator.

    Args:
        unsupported: the operations.
        model: the Keras model.
        options: whether the options of `export_tflite` that allow other operators are advised.
    """

    def __init__(self, unsupported: Iterable[Unsupported], model: Model, *, options: bool = True):
        """Compose the message."""
        self._unsupported, self._model = list(unsupported), model
        which = "; ".join(f"{one.operation} in {one.origin}" for one in self._unsupported)
        ways = []
        if any(one.needs_flex for one in self._unsupported):
            ways.append("pass allow_flex=True (the application must then carry TensorFlow's Flex delegate, several MB)")
        if not all(one.needs_flex for one in self._unsupported):
            ways.append("pass allow_custom=True (the application must then bring its own kernel)")
        lookups = tuple(f"layer {name!r} (" for name in lookup_names(model))
        split = (
            "; or pass without_preprocessing=True: the file begins after the lookup layers, and their work is left to "
            "the application (edgeprune.split_preprocessing)"
            if any(one.origin.startswith(lookups) for one in self._unsupported)
            else ""
        )
        super().__init__(
            f"Model {model.name!r} uses operations that TFLite has no built-in operator for: {which}. "
            f"Replace them by built-in ones{', or ' + ' and '.join(ways) if options else ''}{split}."
        )

    def without_options(self) -> OperatorError:
        """The same error for a place that has no such options."""
        return OperatorError(self._unsupported, self._model, options=False)


def explain(error: Exception, captured: str, model: Model) -> ConversionError:
    """Turn what the converter raised into one clear error.

    Args:
        error: the converter's exception.
        captured: what it printed meanwhile.
        model: the Keras model that was converted.

    Returns:
        The error to raise.
    """
    if (own_type := _own_type(model)) is not None:
        return ConversionError(own_type)
    unsupported = _unsupported(error, model)
    if unsupported:
        return OperatorError(unsupported, model)
    operators = sorted(set(_NO_KERNEL_16X8.findall(str(error))))
    if operators:
        return ConversionError(
            f"Model {model.name!r} cannot be quantized to int16x8: the operator {', '.join(operators)} has no such "
            "version. Use quantization='int8', or replace the layer that needs it."
        )
    text = " ".join((str(error) or captured[-500:]).split())
    return ConversionError(f"Model {model.name!r} could not be converted: {type(error).__name__}: {text[:600]}")


def _own_type(model: Model) -> str | None:
    """What there is to say of a model whose weights are of a type that the converter makes no operators of."""
    for layer in flavor.layers_of(model):
        if flavor.is_quantized_by_keras(layer):
            return (
                f"Layer {layer.name!r} was quantized by Keras's own quantize(), to operators that LiteRT lacks: pass "
                "the model before that, and a quantization of the file."
            )
        if not flavor.is_model(layer) and (kept := flavor.type_beside_float32(layer)) is not None:
            return (
                f"The weights of layer {layer.name!r} are of type {kept}, and LiteRT computes in float32: build the "
                "model with the dtype policy 'float32', and call set_weights(model.get_weights()) on it."
            )
    return None


def origin(location: str, model: Model) -> str:
    """The layer behind an operator, in words.

    Args:
        location: the name of an operation in the traced graph, or of its tensor in the file:
            `"model/block/conv/Conv2D"`.
        model: the Keras model.

    Returns:
        `layer 'block/conv' (Conv2D)`, or where no layer is behind it, `model 'model' outside its layers`.
    """
    found = _layer_behind(location, model)
    if found is None:
        return f"model {model.name!r} outside its layers (a function in its graph or its own `call`)"
    path, layer = found
    return f"layer {path!r} ({type(layer).__name__})"


def paths_behind(location: str, model: Model) -> list[str]:
    """The path names of all the layers that the converter put into one operator, as far as its name says.

    Args:
        location: the name of the operator's tensor in the file: `"net/relu/Relu;net/norm/FusedBatchNormV3"`.
        model: the Keras model.
    """
    found = [_layer_behind(part, model) for part in location.split(";")]
    return list(dict.fromkeys(one[0] for one in found if one is not None))


def _layer_behind(location: str, model: Model) -> tuple[str, Any] | None:
    """The path name of the layer behind an operator, and the layer."""
    layers = {id(layer): layer for layer in flavor.layers_of(model)}
    named = flavor.layer_names(model)
    last = _output_layer(location, model)
    if id(last) in named:
        return named[id(last)], last
    paths = {path: layers[key] for key, path in named.items() if key in layers}
    names = {part for path in paths for part in path.split("/")}
    scopes = [_layer_name(scope, names, flavor.is_keras_3(model)) for scope in _scopes(location)]
    way = "/".join(scope for scope in scopes if scope)
    # The scopes may hold more names than the path (that of the model) or fewer (a layer inside a custom one).
    fitting = [path for path in paths if way == path or way.endswith(f"/{path}")]
    if not fitting:
        innermost = next((scope for scope in reversed(scopes) if scope), None)
        fitting = [path for path in paths if path.rpartition("/")[2] == innermost]
    path = max(fitting, key=len, default=None)
    return None if path is None else (path, paths[path])


def float_notes(content: bytes, model: Model, is_asked: Callable[[str], bool] = lambda location: False) -> list[str]:
    """What of a calibrated file computes in floats all the same, each operator with its layer.

    Args:
        content: the .tflite file.
        model: the Keras model it was converted from.
        is_asked: whether the operator of this location is to compute in floats.

    Returns:
        A sentence for the operators between integer ones, such as `"CONV_3D in layer 'c' (Conv3D)"`, in the order they
        run, one for those that are to compute in floats, and one for the others; nothing where there are none.
    """
    islands = float_islands(content)
    between = {
        f"{name} in {origin(location, model)}": None
        for island in islands
        for name, location in zip(island.operators, island.locations, strict=True)
        if not is_asked(location)
    }
    found = {
        f"{name} in {origin(location, model)}": is_asked(location)
        for name, location, dtype in _operators(content)
        if dtype == "float32" and name != "DEQUANTIZE"
    }
    notes = []
    if asked := [text for text, is_wanted in found.items() if is_wanted]:
        notes.append(f"In floats, as the scheme says: {'; '.join(asked)}.")
    if between:
        unasked = [island for island in islands if not all(map(is_asked, island.locations))]
        count = "A float island" if len(unasked) == 1 else f"{len(unasked)} float islands"
        notes.append(
            f"{count} between integer operators: {'; '.join(between)}. Values are turned into floats and back there, "
            "which takes time and memory, and a device without floats does not run it."
        )
    if others := [text for text, is_wanted in found.items() if not is_wanted and text not in between]:
        notes.append(f"Not all of it is quantized; computed in floats: {'; '.join(others)}.")
    return notes


def operator_origins(content: bytes, model: Model) -> list[tuple[str, str]]:
    """Each operator of a file, in the order they run, with the layer behind it.

    Args:
        content: the .tflite file.
        model: the Keras model it was converted from.

    Returns:
        Such as `("CONV_2D", "layer 'stem' (Conv2D)")`.
    """
    return [(name, origin(location, model)) for name, location, _ in _operators(content)]


def refuse_custom(content: bytes, model: Model, *, allow_flex: bool, allow_custom: bool) -> None:
    """Refuse a file that holds a custom operator nobody asked for.

    The converter lets in, unasked, functions that are marked with `experimental_implements` as one operator.

    Raises:
        OperatorError: names the operators and their layers.
    """
    unasked = []
    for name, location, _ in _operators(content):
        if name.startswith(_CUSTOM):
            operator = name.removeprefix(_CUSTOM)
            flex = operator.startswith("Flex")
            if not (allow_flex if flex else allow_custom):
                unasked.append(Unsupported(operator, origin(location, model), flex))
    if unasked:
        raise OperatorError(dict.fromkeys(unasked), model)


def loops(content: bytes, model: Model) -> list[str]:
    """The layers behind the loops of a .tflite file, in words; empty if it has none."""
    locations = [location for name, location, _ in _operators(content) if name == "WHILE"]
    found = dict.fromkeys(origin(location, model) for location in locations)
    if not any(
        text.startswith("layer") for text in found
    ):  # the layers of `tf_keras` hide the loop in a function without their name
        recurrent = flavor.keras_of(model).layers.RNN
        names = flavor.layer_names(model)
        layers = [layer for layer in flavor.layers_of(model) if isinstance(layer, recurrent)]
        found = dict.fromkeys(f"layer {names[id(layer)]!r} ({type(layer).__name__})" for layer in layers) or found
    return list(found) if locations else []


def state_notes(content: bytes) -> list[str]:
    """What the user of a .tflite file must do that keeps a state from one run to the next: nothing, or one sentence."""
    if not any(tensor.isVariable for tensor in tensors(unpacked(content))):
        return []
    return [
        "The file carries a state from one run to the next, that of its LSTM operators. Reset it before each new "
        "sequence: reset_all_variables() in Python, resetVariableTensors() of Interpreter in Kotlin and Java, "
        "ResetVariableTensors() in C++, Reset() of MicroInterpreter on microcontrollers. Files in float32, 'dynamic' "
        "and 'float16' carry none, nor does an LSTM built with unroll=True, which is larger and runs faster on phones."
    ]


def runtime_notes(content: bytes, model: Model) -> list[str]:
    """Where runtimes that people still have compute a file's int8 operators wrong: nothing, or a sentence for each.

    Measured on files of one operator, with ai-edge-litert 1.2.0 to 2.3.0 and TensorFlow 2.21.
    """
    found: dict[str, list[str]] = {}
    for name, location, dtype in _operators(content):
        if name in _RUNTIME_FAULTS and dtype == "int8":
            found.setdefault(name, []).append(origin(location, model))
    return [f"{name} ({', '.join(dict.fromkeys(origins))}): {_RUNTIME_FAULTS[name]}" for name, origins in found.items()]


def _operators(content: bytes) -> Iterator[tuple[str, str, str]]:
    """Each operator of a .tflite file: its name, and the name and dtype of its first output."""
    for call in operators(unpacked(content)):
        # An operator that only assigns has no output; its first input stands for it. Some have neither.
        tensor = call.output(0) or call.input(0)
        dtype = "" if tensor is None else type_name(tensor)
        yield f"{_CUSTOM}{call.name}" if call.custom else call.name, call.location, dtype


def _output_layer(location: str, model: Model) -> Any | None:
    """The layer behind an operator of one of the file's outputs, which are numbered in order of name."""
    output = re.match(r"StatefulPartitionedCall:(\d)", location)
    layers = flavor.output_layers(model)
    if output is None or not layers:
        return None
    layer = layers[sorted(layers)[int(output[1])]]
    return _output_layer("StatefulPartitionedCall:0", layer) if flavor.is_model(layer) else layer


def _unsupported(error: Exception, model: Model) -> list[Unsupported]:
    found: dict[Any, Any] = {}
    for entry in getattr(error, "errors", ()):
        needs = type(entry).ErrorCode.Name(entry.error_code)
        if needs in ("ERROR_NEEDS_FLEX_OPS", "ERROR_NEEDS_CUSTOM_OPS"):
            location = entry.location.call[0].name if entry.location.call else ""
            operation = entry.operator.name.removeprefix("tf.")
            one = Unsupported(operation, origin(location, model), needs == "ERROR_NEEDS_FLEX_OPS")
            found[one] = None
    return list(found)


def _scopes(location: str) -> list[str]:
    """The name scopes around an operation, the outermost first; a fused operator's first name counts."""
    return location.split(";")[0].split("@")[0].split("/")[:-1]


def _layer_name(scope: str, names: set[str], keras_3: bool) -> str | None:
    # TensorFlow numbers a scope that is opened again, and Keras 3 opens each one twice.
    unnumbered = re.sub(r"_\d+$", "", scope)
    readings = (unnumbered, scope) if keras_3 else (scope, unnumbered)
    return next((reading for reading in readings if reading in names), None)
