"""The bundle of a firmware developer: the model as a C array, the operators to register, an arena that is true.

    model.tflite  model_data.h  model_data.cc  model_ops.h  model_config.h  golden_vectors.h
    example_main.cc  test_main.cc  CMakeLists.txt  README.md  model_card.json  MODEL_CARD.md

The file is run on the interpreter for microcontrollers before anything is written about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.export.bundle_content import BundleContent, identifier
from edgeprune.export.diagnosis import operator_origins
from edgeprune.export.rendering import render
from edgeprune.measure.memory import activation_memory
from edgeprune.measure.micro import (
    ALIGNMENT,
    MicroError,
    MicroParity,
    MicroRuntime,
    align,
    compare_with_reference,
    measure_arena,
)
from edgeprune.measure.runtime import Port, Runtime
from edgeprune.measure.tflite_file import read_tflite

# Kernels made for the device ask for scratch buffers that those of this machine do without; one model needed 14 % more.
ARENA_MARGIN = 0.2
GOLDEN_BYTES = 64 * 1024
# Kibibytes of code, rounded up, of a build for a Cortex-M4 with -Os; every other operator is put at DEFAULT_KERNEL_KIB.
CORE_KIB = 30
KERNEL_KIB = {
    "CONV_2D": 10,
    "DEPTHWISE_CONV_2D": 8,
    "FULLY_CONNECTED": 5,
    "TRANSPOSE_CONV": 8,
    "SOFTMAX": 4,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": 16,
    "SVDF": 6,
    "RESHAPE": 1,
    "QUANTIZE": 2,
    "DEQUANTIZE": 1,
}
DEFAULT_KERNEL_KIB = 3
# What a method of the resolver is called where the rule does not tell.
_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
_C_TYPES = {"int8": "int8_t", "int16": "int16_t", "float32": "float", "int32": "int32_t", "uint8": "uint8_t"}
# By how much the kernels for microcontrollers may differ from the reference, in steps. In int8 no operator was found to
# differ at all, other than some that compute something else by far; in int16 a few differ by one step, which adds up
# over a deep stack of them; floats are summed in another order.
_WORST = {"int8": 4, "int16": 64, "float32": 1e-3}
# How far a device's kernels may lie from the reference ones, in steps of the output.
_TOLERANCE = {"int8": 0, "int16": 2, "float32": 1e-4}


def write(content: BundleContent) -> dict[str, Any]:
    """Prove the file on TensorFlow Lite for Microcontrollers and write the bundle's files.

    Args:
        content: the exported file and what is known about the model; files are written into its folder.

    Returns:
        The figures: the arena, the parity, bytes of flash, the layer that sets the RAM.

    Raises:
        ValueError: operators are not supported (all are named, with their layers), the file does not run, it
            computes something else, or it does not fit into the target's memories.
        ImportError: tflite-micro is not installed.
    """
    file = content.tflite
    check_operators(file, content)
    align(file, file)
    try:
        arena = measure_arena(file)
        parity = compare_with_reference(file, content.samples)
    except MicroError as error:
        raise ValueError(_with_layer(error, content)) from error
    if parity.largest > _WORST.get(output_type(file), 0):
        raise ValueError(
            f"Model {content.name!r} computes something else on microcontrollers: {parity.mismatches} of "
            f"{parity.values} output values differ from the reference kernels', by up to {parity.largest:g}."
        )
    operators = read_tflite(file).operator_counts
    figures = {
        "arena": {**arena.to_dict(), "with_margin": with_margin(arena.bytes, scratch_bytes(file))},
        "model_bytes": file.stat().st_size,
        "flash_bytes_estimate": file.stat().st_size + kernel_bytes(operators),
        "parity": parity.to_dict(),
        "ram_layer": ram_layer(content),
        "operators": dict(operators),
        "notes": _parity_notes(parity),
    }
    _check_memories(content, figures)
    _write_files(content, figures)
    return figures


def _parity_notes(parity: MicroParity) -> list[str]:
    notes = []
    if not parity.exact:
        notes.append(
            f"{parity.mismatches} of {parity.values} output values differ from the reference kernels', by up to "
            f"{parity.largest:g}."
        )
    if parity.litert_mismatches > parity.mismatches:
        notes.append(
            f"LiteRT gives other values for {parity.litert_mismatches} of {parity.values} outputs, by up to "
            f"{parity.litert_largest:g}: it scales the sums of dense layers in floating point, microcontrollers in "
            "integers. Compare your device with the golden vectors."
        )
    return notes


def check_operators(file: Path, content: BundleContent) -> None:
    """Refuse a file with operators that the target has no kernels for, naming all of them at once.

    Raises:
        ValueError: names each operator with the layers that brought it.
    """
    supported = content.target.operators
    if supported is None:
        return
    missing: dict[str, list[str]] = {}
    for name, layer in operator_origins(file.read_bytes(), content.model):
        if name not in supported:
            layers = missing.setdefault(name, [])
            if layer not in layers:
                layers.append(layer)
    if missing:
        named = "; ".join(f"{name} in {', '.join(layers)}" for name, layers in missing.items())
        raise ValueError(
            f"Model {content.name!r} does not run on {content.target.name}, which has no kernel for: {named}. Replace "
            "these layers, or choose another target."
        )


def resolver_methods(operators: Sequence[str]) -> list[str]:
    """The methods of `MicroMutableOpResolver` that register these operators, sorted.

    Example:
        >>> resolver_methods(["CONV_2D", "PADV2"])
        ['AddConv2D', 'AddPadV2']
    """
    return sorted({_METHODS.get(name) or _method(name) for name in operators})


def _method(operator: str) -> str:
    return "Add" + "".join(part if part[0].isdigit() else part.capitalize() for part in operator.split("_"))


def kernel_bytes(operators: Sequence[str]) -> int:
    """An estimate of the code's size: the interpreter, and a kernel for each kind of operator."""
    return 1024 * (CORE_KIB + sum(KERNEL_KIB.get(name, DEFAULT_KERNEL_KIB) for name in operators))


def scratch_bytes(file: Path) -> int:
    """The largest scratch buffer that CMSIS-NN's kernels would ask for, by the shapes of their operators.

    A convolution lays out two columns of its window in int16, a depthwise one its window in int16.

    Source: https://github.com/ARM-software/CMSIS-NN, the `*_get_buffer_size` functions.
    """
    sizes = [0]
    for operator in read_tflite(file).operators:
        shapes = operator.input_shapes
        if operator.name == "CONV_2D" and shapes[1]:
            _, height, width, channels = shapes[1]
            sizes.append(4 * height * width * channels)
        elif operator.name == "DEPTHWISE_CONV_2D" and shapes[1]:
            _, height, width, channels = shapes[1]
            sizes.append(2 * height * width * channels)
        elif operator.name in ("FULLY_CONNECTED", "AVERAGE_POOL_2D") and operator.output_shapes[0]:
            sizes.append(4 * operator.output_shapes[0][-1])
    return max(sizes)


def with_margin(arena_bytes: int, scratch: int) -> int:
    """The arena to reserve: a fifth more than what was measured, or more where scratch buffers may need it."""
    size = max(arena_bytes * (1 + ARENA_MARGIN), arena_bytes + scratch)
    return int(-(-size // ALIGNMENT)) * ALIGNMENT


def ram_layer(content: BundleContent) -> str:
    """The Keras layer that sets the RAM; empty where the model's graph cannot be had."""
    dtype = {"int8": "int8", "int16x8": "int16"}.get(content.quantization, "float32")
    try:
        return activation_memory(content.model, dtype).layer
    except ValueError:
        return ""


def output_type(file: Path) -> str:
    """The type of a file's first output."""
    return next(iter(Runtime(file).outputs.values())).dtype.name


def _with_layer(error: MicroError, content: BundleContent) -> str:
    text = f"Model {content.name!r} does not run on TensorFlow Lite for Microcontrollers: {error.reason}."
    if error.operator is not None:
        origins = operator_origins(content.tflite.read_bytes(), content.model)
        if error.operator < len(origins):
            name, layer = origins[error.operator]
            text += f" That is {name} in {layer}."
    return text


def _check_memories(content: BundleContent, figures: dict[str, Any]) -> None:
    """Refuse a model that is too big for its board, naming what sets the size."""
    device, arena = content.target, figures["arena"]["with_margin"]
    if device.ram_bytes is not None and arena > device.ram_bytes:
        layer = (
            f" Layer {figures['ram_layer']!r} sets it: make it or its input smaller." if figures["ram_layer"] else ""
        )
        raise ValueError(
            f"Model {content.name!r} does not fit {device.name}: it needs an arena of {arena:,} bytes (margin "
            f"included) and the board has {device.ram_bytes:,} bytes of RAM.{layer}"
        )
    flash = figures["flash_bytes_estimate"]
    if device.flash_bytes is not None and flash > device.flash_bytes:
        largest = max(content.verification.weights, key=lambda row: row.elements, default=None)
        layer = f" Layer {largest.layer!r} has the most weights, {largest.elements:,}." if largest else ""
        raise ValueError(
            f"Model {content.name!r} does not fit {device.name}: it needs about {flash:,} bytes of flash (model "
            f"{figures['model_bytes']:,}, the rest an estimate of the code) and the board has "
            f"{device.flash_bytes:,}.{layer}"
        )


def _write_files(content: BundleContent, figures: dict[str, Any]) -> None:
    runtime = Runtime(content.tflite)
    ports = {
        "inputs": _described(runtime.inputs.values(), "input"),
        "outputs": _described(runtime.outputs.values(), "output"),
    }
    inputs, outputs = _golden(content, runtime)
    values = {
        "content": content,
        "figures": figures,
        "methods": resolver_methods([name for name in figures["operators"]]),
        "model_bytes": content.tflite.read_bytes(),
        "golden_inputs": inputs,
        "golden_outputs": outputs,
        "tolerance": [_TOLERANCE.get(port.dtype.name, 0) for port in runtime.outputs.values()],
        "margin_percent": round(100 * (figures["arena"]["with_margin"] / figures["arena"]["bytes"] - 1)),
        **ports,
    }
    for name in (
        "model_data.h",
        "model_data.cc",
        "model_ops.h",
        "model_config.h",
        "golden_vectors.h",
        "example_main.cc",
        "test_main.cc",
        "CMakeLists.txt",
        "README.md",
    ):
        text = render(f"microcontroller/{name}", **values)
        (content.folder / name).write_text(text, encoding="utf-8")


def _described(ports: Any, word: str) -> list[dict[str, Any]]:
    """What the templates need of each input or output, under a name that C takes."""
    ports = list(ports)
    names = [identifier(port.name) for port in ports]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [
        {
            "name": port.name,
            "identifier": f"{name}_{number}" if name in repeated or name == "model" else name,
            "word": word,
            "c_type": _c_type(port),
            "shape": list(port.shape),
            "elements": int(np.prod(port.shape)),
            "scale": port.scale if port.quantized else 1.0,
            "zero_point": port.zero_point if port.quantized else 0,
            "quantized": port.quantized,
        }
        for number, (port, name) in enumerate(zip(ports, names, strict=True))
    ]


def _c_type(port: Port) -> str:
    if port.dtype.name not in _C_TYPES:
        raise ValueError(f"{port.name!r} is of type {port.dtype.name}, which the generated code does not handle.")
    return _C_TYPES[port.dtype.name]


def _golden(content: BundleContent, runtime: Runtime) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Encoded inputs, and what the microcontroller's own kernels make of them: `(samples, elements)` for each port."""
    encoded = [port.encode(content.samples[name]) for name, port in runtime.inputs.items()]
    sample_bytes = sum(array[0].nbytes for array in encoded)
    count = max(1, min(len(encoded[0]), GOLDEN_BYTES // sample_bytes))
    micro = MicroRuntime(content.tflite)
    outputs = [micro.run([array[number : number + 1] for array in encoded]) for number in range(count)]
    given = [np.stack([row[number].ravel() for row in outputs]) for number in range(len(runtime.outputs))]
    return [array[:count].reshape(count, -1) for array in encoded], given
