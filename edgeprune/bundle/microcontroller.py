"""The bundle of a firmware developer: the model as a C array, the operators to register, an arena that is true.

    model.tflite  model_data.h  model_data.cc  model_ops.h  model_config.h  golden_vectors.h
    example_main.cc  test_main.cc  CMakeLists.txt  README.md  model_card.json  MODEL_CARD.md

The file is run on the interpreter for microcontrollers before anything is written about it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.bundle.content import BundleContent
from edgeprune.bundle.cpp_sources import (
    board_figures,
    check_memories,
    kernel_bytes,
    ram_layer,
    resolver_methods,
    with_margin,
    write_sources,
)
from edgeprune.bundle.rendering import require_jinja2
from edgeprune.export.diagnosis import operator_origins
from edgeprune.measure.tflm import (
    Arena,
    MicroError,
    MicroParity,
    MicroRuntime,
    align,
    compare_with_reference,
    measure_arena,
    require_tflite_micro,
)
from edgeprune.targets import Target
from edgeprune.tflite.edit import prefix
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.graph import operators, unpacked
from edgeprune.tflite.runtime import Runtime
from edgeprune.types import Model

# How far a device's kernels may lie from the reference ones, in steps of the output.
_TOLERANCE = {"int8": 0, "uint8": 0, "int16": 2, "float32": 1e-4}
# By how much the kernels for microcontrollers may differ from the reference, in steps. In int8 no operator was found to
# differ at all, other than some that compute something else by far; in int16 a few differ by one step, which adds up
# over a deep stack of them; floats are summed in another order.
_WORST = {"int8": 4, "uint8": 4, "int16": 64, "float32": 1e-3}
# The same for LiteRT's fast kernels, which round otherwise: they decide where a reference kernel is wrong itself, as
# the one for SUM in int8 is.
_WORST_FROM_LITERT = {"int8": 16, "uint8": 16, "int16": 256, "float32": 1e-3}
# From how many operators on a user should know what each of them costs.
_MANY_OPERATORS = 50


def check_installed() -> None:
    """Say what to install where something is missing that microcontroller bundles need.

    Raises:
        ImportError: the interpreter is missing, or the templates cannot be filled in.
    """
    require_jinja2()
    require_tflite_micro()


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
    check_operators(file, content.model, content.target, content.name)
    align(file, file)
    try:
        arena = measure_arena(file)
        parity = compare_with_reference(file, content.samples)
    except MicroError as error:
        raise ValueError(_with_layer(error, content)) from error
    _check_outputs(content, parity)
    counts = read_tflite(file).operator_counts
    reserved = with_margin(arena.bytes, scratch_bytes(file))
    flash = file.stat().st_size + kernel_bytes(list(counts))
    figures = {
        "arena": {**arena.to_dict(), "with_margin": reserved},
        "model_bytes": file.stat().st_size,
        "flash_bytes_estimate": flash,
        "board": board_figures(content, reserved, flash),
        "parity": parity.to_dict(),
        "ram_layer": ram_layer(content),
        "operators": dict(counts),
        "notes": [*_arena_notes(arena, sum(counts.values())), *_parity_notes(parity, output_type(file))],
    }
    check_memories(content, figures)
    methods = resolver_methods(list(counts))
    write_sources(content, figures, file, methods, MicroRuntime(file).run, _TOLERANCE)
    return figures


def _first_difference(content: BundleContent) -> str:
    """The operator at which microcontrollers' kernels part from the reference, with its layer."""

    def differs(cut: Path, samples: Mapping[str, np.ndarray]) -> bool:
        return not compare_with_reference(cut, samples).exact

    return _first_operator(content, differs)


def _first_operator(content: BundleContent, bad: Callable[[Path, Mapping[str, np.ndarray]], bool]) -> str:
    """The first operator with which a file is bad on the first golden sample, with its layer, by bisection.

    Args:
        content: the file, which is bad as a whole.
        bad: a function of the beginning of the file, cut after an operator, and the sample for its inputs.
    """
    file = content.tflite.read_bytes()
    origins = operator_origins(file, content.model)
    given = [content.samples[name][:1] for name in Runtime(content.tflite).inputs]
    good, found = 0, len(origins)
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.tflite"
        while found - good > 1:
            middle = (good + found) // 2
            cut.write_bytes(prefix(file, middle))
            is_bad = bad(cut, dict(zip(Runtime(cut).inputs, given, strict=True)))
            good, found = (good, middle) if is_bad else (middle, found)
    name, layer = origins[found - 1]
    return f"{name} in {layer}"


def _check_outputs(content: BundleContent, parity: MicroParity) -> None:
    """Refuse a file whose outputs on microcontrollers are neither the reference kernels' nor those of the fast ones."""
    dtype = output_type(content.tflite)
    if parity.largest > _WORST.get(dtype, 0) and parity.litert_largest > _WORST_FROM_LITERT.get(dtype, 0):
        raise ValueError(
            f"Model {content.name!r} computes something else on microcontrollers: {parity.mismatches} of "
            f"{parity.values} output values differ from the reference kernels', by up to {parity.largest:g}. They part "
            f"at {_first_difference(content)}."
        )


def _arena_notes(arena: Arena, operators: int) -> list[str]:
    """Say where the number of operators sets the arena, as with recurrent layers that were unrolled."""
    if operators < _MANY_OPERATORS or arena.tail < arena.head:
        return []
    return [
        f"{arena.tail:,} of the arena's {arena.bytes:,} bytes are the interpreter's own, for its {operators} operators."
    ]


def _parity_notes(parity: MicroParity, dtype: str) -> list[str]:
    notes = []
    if not parity.exact:
        notes.append(
            f"{parity.mismatches} of {parity.values} output values differ from the reference kernels', by up to "
            f"{parity.largest:g}."
        )
    if parity.litert_largest > _TOLERANCE.get(dtype, 0):
        notes.append(
            f"LiteRT on a computer or phone returns other values for {parity.litert_mismatches} of {parity.values} "
            f"outputs, by up to {parity.litert_largest:g}, as its kernels round otherwise. Compare your device with "
            "the golden vectors."
        )
    return notes


def check_operators(file: Path, model: Model, target: Target, name: str) -> None:
    """Refuse a file with operators that the target has no kernels for, or none for their types, all named at once.

    Args:
        file: the .tflite file.
        model: the Keras model that it was converted from.
        target: the device.
        name: what the model is called in the error.

    Raises:
        ValueError: names each operator with the layers that brought it.
    """
    missing: dict[str, dict[str, None]] = {}
    of_floats = False
    content = file.read_bytes()
    for call, (operator, layer) in zip(operators(unpacked(content)), operator_origins(content, model), strict=True):
        if not target.has_kernel(operator, call.input_type):
            runs_floats = target.has_kernel(operator, "float32")
            of_floats = of_floats or (runs_floats and target.computes_floats)
            missing.setdefault(f"{operator} of {call.input_type}" if runs_floats else operator, {})[layer] = None
    if missing:
        named = "; ".join(f"{kernel} in {', '.join(layers)}" for kernel, layers in missing.items())
        floats = " leave those of integers in floats, with layers={name: 32} of a Scheme," if of_floats else ""
        raise ValueError(
            f"Model {name!r} does not run on {target.name}, which has no kernel for: {named}. Replace these layers,"
            f"{floats} or choose another target."
        )


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


def output_type(file: Path) -> str:
    """The type of a file's first output."""
    return read_tflite(file).outputs[0].dtype


def _with_layer(error: MicroError, content: BundleContent) -> str:
    """The interpreter's words, with the operator that it failed at and the layer behind that."""
    text = f"Model {content.name!r} does not run on TensorFlow Lite for Microcontrollers: {error.reason}."
    origins = operator_origins(content.tflite.read_bytes(), content.model)
    if error.operator is not None and error.operator < len(origins):
        name, layer = origins[error.operator]
        if f"Node {name} " in error.reason:  # its number may be one of a loop's own operators
            return f"{text} That is {name} in {layer}."
    return f"{text} That is {_first_operator(content, _fails)}."


def _fails(file: Path, samples: Mapping[str, np.ndarray]) -> bool:
    try:
        MicroRuntime(file).run([port.encode(samples[name]) for name, port in Runtime(file).inputs.items()])
    except MicroError:
        return True
    return False
