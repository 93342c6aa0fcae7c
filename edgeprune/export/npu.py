"""The bundle for a microcontroller with an Arm Ethos-U NPU: the file compiled by Vela, and the code that loads it.

    model.tflite  model_vela.tflite  model_data.h  model_data.cc  model_ops.h  README.md  model_card.json  MODEL_CARD.md

`model.tflite` is the file before Vela: it computes the same on any machine, for comparison.
"""

from __future__ import annotations

from typing import Any

from edgeprune.export.bundle_content import BundleContent
from edgeprune.export.diagnosis import operator_origins
from edgeprune.export.microcontroller import ram_layer, resolver_methods
from edgeprune.export.rendering import render
from edgeprune.measure.vela import NpuReport, VelaError, compile_for_npu


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
        report = compile_for_npu(content.tflite, content.target.accelerator, compiled)
    except VelaError as error:
        text = str(error).replace(str(content.tflite), f"model {content.name!r}")
        raise ValueError(text) from error
    left = _left_on_cpu(content, report)
    supported = content.target.operators
    missing = [entry for entry in left if supported is not None and entry[0] not in supported]
    if missing:
        named = "; ".join(f"{name} in {layer}" for name, layer in missing)
        raise ValueError(
            f"Model {content.name!r} does not run on {content.target.name}: neither the NPU nor the CPU beside it has "
            f"a kernel for {named}."
        )
    _check_memories(content, report)
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
        "model_bytes": compiled.stat().st_size,
        "cpu_operators": [f"{name} in {layer}" for name, layer in left],
        "cpu_share_of_macs": report.cpu_share,
    }
    figures["notes"] = _notes(left, report)
    values = {
        "content": content,
        "figures": figures,
        "methods": sorted(["AddEthosU", *resolver_methods([name for name, _ in left])]),
        "model_bytes": compiled.read_bytes(),
    }
    for template in (
        "microcontroller/model_data.h",
        "microcontroller/model_data.cc",
        "microcontroller/model_ops.h",
        "npu/README.md",
    ):
        text = render(template, **values)
        (content.folder / template.rpartition("/")[2]).write_text(text, encoding="utf-8")
    return figures


def _left_on_cpu(content: BundleContent, report: NpuReport) -> list[tuple[str, str]]:
    """The operators left on the CPU, each with the Keras layer behind it."""
    origins = operator_origins(report.path.read_bytes(), content.model)
    return [origins[number] for number, _ in report.cpu_operators]


def _check_memories(content: BundleContent, report: NpuReport) -> None:
    device, flash = content.target, report.path.stat().st_size
    if device.ram_bytes is not None and report.sram_bytes > device.ram_bytes:
        layer = ram_layer(content)
        raise ValueError(
            f"Model {content.name!r} does not fit {device.name}: it needs {report.sram_bytes:,} bytes of SRAM and the "
            f"board has {device.ram_bytes:,}." + (f" Layer {layer!r} sets it." if layer else "")
        )
    if device.flash_bytes is not None and flash > device.flash_bytes:
        raise ValueError(
            f"Model {content.name!r} does not fit {device.name}: the compiled file has {flash:,} bytes and the board "
            f"has {device.flash_bytes:,} bytes of flash."
        )


def _notes(left: list[tuple[str, str]], report: NpuReport) -> list[str]:
    notes = ["Cycles and milliseconds are Vela's estimates for the NPU alone; operators left on the CPU come on top."]
    if left:
        notes.append(
            f"{len(left)} operators stay on the CPU, {report.cpu_share:.1%} of the MACs: "
            f"{'; '.join(f'{name} in {layer}' for name, layer in left)}."
        )
    return notes
