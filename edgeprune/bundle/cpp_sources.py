"""The C++ that microcontrollers and NPUs share: the model as an array, its operators, its memory, proof and an example.

model_data.h  model_data.cc  model_ops.h  model_config.h  golden_vectors.h  example_main.cc  test_main.cc
CMakeLists.txt  README.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.bundle.content import BundleContent, distinct, snake_case
from edgeprune.bundle.rendering import render
from edgeprune.measure.memory import activation_memory
from edgeprune.measure.tflm import ALIGNMENT
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.graph import has_unit_scales
from edgeprune.tflite.runtime import Port, Runtime

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
# The names of the resolver's methods that do not follow the rule.
_METHODS = {
    "BATCH_MATMUL": "AddBatchMatMul",
    "CUMSUM": "AddCumSum",
    "PADV2": "AddPadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
}
# What C++ and TensorFlow Lite for Microcontrollers call the types of inputs and outputs.
_TYPES = {
    "int8": ("int8_t", "kTfLiteInt8"),
    "uint8": ("uint8_t", "kTfLiteUInt8"),
    "int16": ("int16_t", "kTfLiteInt16"),
    "int32": ("int32_t", "kTfLiteInt32"),
    "float32": ("float", "kTfLiteFloat32"),
}
_SOURCES = (
    "model_data.h",
    "model_data.cc",
    "model_ops.h",
    "model_config.h",
    "golden_vectors.h",
    "example_main.cc",
    "test_main.cc",
    "CMakeLists.txt",
)


def write_sources(
    content: BundleContent,
    figures: Mapping[str, Any],
    file: Path,
    methods: Sequence[str],
    kernels: Callable[[list[np.ndarray]], list[np.ndarray]],
    tolerance: Mapping[str, float],
) -> None:
    """Write the C++ files and the README of the target's kind into the bundle's folder.

    Args:
        content: what the bundle is written from; its file defines the inputs and outputs.
        figures: what was measured: `arena`, `model_bytes`, `flash_bytes_estimate`.
        file: the file that becomes the array.
        methods: how the resolver registers its operators.
        kernels: returns the outputs of one inference for its encoded inputs, for the golden vectors.
        tolerance: by how much a device may differ from those, for each type of an output.

    Raises:
        ValueError: an input or an output is of a type that the code does not handle.
    """
    runtime = content.runtime
    inputs, outputs = _golden(content, runtime, kernels)
    arena = figures["arena"]
    values = {
        "content": content,
        "figures": figures,
        "methods": methods,
        "model_bytes": file.read_bytes(),
        "inputs": _described(runtime.inputs.values(), "input"),
        "outputs": _described(runtime.outputs.values(), "output"),
        "golden_inputs": inputs,
        "golden_outputs": outputs,
        "notes": [*content.notes, *figures["notes"]],
        "unit_scales": has_unit_scales(content.tflite.read_bytes()),
        "stateful": read_tflite(content.tflite).stateful,
        "tolerance": [tolerance.get(port.dtype.name, 0) for port in runtime.outputs.values()],
        "margin_percent": round(100 * (arena["with_margin"] / arena["bytes"] - 1)),
    }
    for name in _SOURCES:
        (content.folder / name).write_text(render(f"microcontroller/{name}", **values), encoding="utf-8")
    readme = render(f"{content.target.kind}/README.md", **values)
    (content.folder / "README.md").write_text(readme, encoding="utf-8")


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


def with_margin(arena_bytes: int, scratch: int) -> int:
    """The arena to reserve: a fifth more than what was measured, or more where scratch buffers may need it."""
    size = max(arena_bytes * (1 + ARENA_MARGIN), arena_bytes + scratch)
    return int(-(-size // ALIGNMENT)) * ALIGNMENT


def ram_layer(content: BundleContent) -> str:
    """The Keras layer that sets the RAM; empty where the model's graph is not available."""
    dtype = {"int8": "int8", "int4": "int8", "int16x8": "int16"}.get(content.quantization or "", "float32")
    try:
        return activation_memory(content.model, dtype).arena_layer
    except ValueError:
        return ""


def board_figures(content: BundleContent, arena_bytes: int, flash_bytes: int) -> dict[str, Any]:
    """The share of the board's memories that the model needs, where those are known.

    Args:
        content: names the target.
        arena_bytes: the arena to reserve.
        flash_bytes: the estimate of the model and its code.

    Returns:
        The board's bytes of RAM and flash, and the share of each that the model needs, 0 to 1.
    """
    device = content.target
    memories = (("ram", device.ram_bytes, arena_bytes), ("flash", device.flash_bytes, flash_bytes))
    known = [(name, board, taken / board) for name, board, taken in memories if board is not None]
    return {
        key: value
        for name, board, share in known
        for key, value in ((f"{name}_bytes", board), (f"{name}_share", share))
    }


def check_memories(content: BundleContent, figures: Mapping[str, Any]) -> None:
    """Refuse a model that is too big for its board.

    Args:
        content: what is known about the model and its target.
        figures: `arena`, `ram_layer`, `flash_bytes_estimate` and `model_bytes`.

    Raises:
        ValueError: it is too big; the message names the layer that sets the size.
    """
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


def _described(ports: Iterable[Port], word: str) -> list[dict[str, Any]]:
    """What the templates need of each input or output, with the end of its name in C."""
    ports = list(ports)
    names = distinct((snake_case(port.name) or word for port in ports), "_")
    types = map(_types, ports)
    return [
        {
            "name": port.name,
            "identifier": name,
            "word": word,
            "c_type": c_type,
            "tflite_type": tflite_type,
            "shape": list(port.shape),
            "elements": int(np.prod(port.shape)),
            "scale": port.scale if port.quantized else 1.0,
            "zero_point": port.zero_point if port.quantized else 0,
            "quantized": port.quantized,
        }
        for port, name, (c_type, tflite_type) in zip(ports, names, types, strict=True)
    ]


def _types(port: Port) -> tuple[str, str]:
    if port.dtype.name not in _TYPES:
        raise ValueError(f"{port.name!r} is of type {port.dtype.name}, which the generated code does not handle.")
    return _TYPES[port.dtype.name]


def _golden(
    content: BundleContent, runtime: Runtime, kernels: Callable[[list[np.ndarray]], list[np.ndarray]]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Encoded inputs, and what the kernels make of them: `(samples, elements)` for each port."""
    encoded = [port.encode(content.samples[name]) for name, port in runtime.inputs.items()]
    sample_bytes = sum(array[0].nbytes for array in encoded)
    count = max(1, min(len(encoded[0]), GOLDEN_BYTES // sample_bytes))
    outputs = [kernels([array[number : number + 1] for array in encoded]) for number in range(count)]
    given = [np.stack([row[number].ravel() for row in outputs]) for number in range(len(runtime.outputs))]
    return [array[:count].reshape(count, -1) for array in encoded], given
