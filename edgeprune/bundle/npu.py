"""The bundle for a microcontroller with an Arm Ethos-U NPU: the file compiled by Vela, and the code that runs it.

    model.tflite  model_vela.tflite  model_data.h  model_data.cc  model_ops.h  model_config.h  golden_vectors.h
    example_main.cc  test_main.cc  CMakeLists.txt  README.md  model_card.json  MODEL_CARD.md

`model.tflite` is the file before Vela: it computes the same on any machine, and the golden vectors are its outputs.
No NPU runs here, so what the compiled file computes is left to `test_main.cc` on the board.
"""

from __future__ import annotations

from typing import Any

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
from edgeprune.measure.integer_reference import integer_reference, lacking_kernel
from edgeprune.measure.vela import NPU_OPERATOR, NpuReport, VelaError, compile_for_npu, require_vela
from edgeprune.tflite.graph import operators, unpacked

# What the interpreter keeps for itself beside the tensors: on 64 bits a file of one operator takes a kilobyte, and each
# further one up to a kilobyte more.
_INTERPRETER_BYTES = 4096
_OPERATOR_BYTES = 1024
# NPUs were made to compute as the reference kernels do; a step is left for what was never run here, and as much again
# for kernels that round otherwise than those.
_TOLERANCE = {"int8": 1, "uint8": 1, "int16": 2}


def check_installed() -> None:
    """Say what to install where something is missing that NPU bundles need.

    Raises:
        ImportError: Vela is missing, or the templates cannot be filled in.
    """
    require_jinja2()
    require_vela()


def write(content: BundleContent) -> dict[str, Any]:
    """Compile the file for the target's accelerator and write the bundle's files.

    Args:
        content: the exported file and what is known about the model; files are written into its folder.

    Returns:
        The figures: cycles, milliseconds, SRAM, and what is left on the CPU.

    Raises:
        ValueError: nothing would run on the NPU, Vela fails, or an operator left on the CPU has no kernel there. The
            message names the layers.
        ImportError: Vela is not installed.
    """
    compiled = content.folder / "model_vela.tflite"
    try:
        report = compile_for_npu(content.tflite, content.target.accelerator or "", compiled)
    except VelaError as error:
        text = str(error).replace(str(content.tflite), f"model {content.name!r}")
        raise ValueError(text) from error
    left = _left_on_cpu(content, report)
    if missing := _without_kernel(content, report, left):
        named = "; ".join(f"{name} in {layer}" for name, layer in missing)
        raise ValueError(
            f"Model {content.name!r} does not run on {content.target.name}: neither the NPU nor its CPU has "
            f"a kernel for {named}."
        )
    lacking = lacking_kernel(content.tflite)
    names = [NPU_OPERATOR, *(name for name, _ in left)]
    arena = _arena(report, names)
    flash = compiled.stat().st_size + kernel_bytes(sorted(set(names)))
    figures = {
        "npu": {
            "accelerator": report.accelerator,
            "system_config": report.system_config,
            "memory_mode": report.memory_mode,
            "cycles_estimate": report.cycles,
            "milliseconds_estimate": report.milliseconds,
            "sram_bytes": report.sram_bytes,
            "weight_bytes": report.weight_bytes,
        },
        "arena": arena,
        "ram_layer": ram_layer(content),
        "model_bytes": compiled.stat().st_size,
        "flash_bytes_estimate": flash,
        "board": board_figures(content, arena["with_margin"], flash),
        "cpu_operators": [f"{name} in {layer}" for name, layer in left],
        "cpu_share_of_macs": report.cpu_share,
        "golden_vectors_from": "the reference kernels" if lacking is None else "LiteRT's fast kernels",
    }
    figures["notes"] = [*_notes(left, report), _golden_note(content, lacking)]
    check_memories(content, figures)
    methods = sorted(["AddEthosU", *resolver_methods([name for name, _ in left])])
    tolerance = {dtype: steps if lacking is None else 2 * steps for dtype, steps in _TOLERANCE.items()}
    with integer_reference(content.tflite) as reference:
        write_sources(content, figures, compiled, methods, reference.run, tolerance)
    return figures


def _left_on_cpu(content: BundleContent, report: NpuReport) -> list[tuple[str, str]]:
    """The operators left on the CPU, each with the Keras layer behind it."""
    origins = operator_origins(report.path.read_bytes(), content.model)
    return [origins[number] for number, _ in report.cpu_operators]


def _without_kernel(content: BundleContent, report: NpuReport, left: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the operators left on the CPU that it cannot compute either."""
    calls = list(operators(unpacked(report.path.read_bytes())))
    types = [calls[number].input_type for number, _ in report.cpu_operators]
    return [entry for entry, dtype in zip(left, types, strict=True) if not content.target.has_kernel(entry[0], dtype)]


def _arena(report: NpuReport, operators: list[str]) -> dict[str, int]:
    """The arena: the tensors as Vela placed them, and an estimate of what the interpreter keeps."""
    tail = _INTERPRETER_BYTES + _OPERATOR_BYTES * (len(operators) - 1)
    size = report.arena_bytes + tail
    return {"bytes": size, "head": report.arena_bytes, "tail": tail, "with_margin": with_margin(size, 0)}


def _notes(left: list[tuple[str, str]], report: NpuReport) -> list[str]:
    notes = [
        "Cycles and milliseconds are Vela's estimates for the NPU alone; operators on the CPU are not included.",
    ]
    if left:
        notes.append(
            f"{len(left)} operators run on the CPU, {report.cpu_share:.1%} of the MACs: "
            f"{'; '.join(f'{name} in {layer}' for name, layer in left)}."
        )
    return notes


def _golden_note(content: BundleContent, lacking: str | None) -> str:
    """Where the golden vectors come from, as no NPU ran the file here."""
    no_npu = "No NPU ran it here: the golden vectors are what"
    if lacking is None:
        return f"{no_npu} the reference kernels make of the file before Vela."
    layers = [layer for name, layer in operator_origins(content.tflite.read_bytes(), content.model) if name == lacking]
    return (
        f"{no_npu} LiteRT's fast kernels make of the file before Vela, and may differ by a step: there is no reference "
        f"kernel for {lacking} in {', '.join(dict.fromkeys(layers))}."
    )
