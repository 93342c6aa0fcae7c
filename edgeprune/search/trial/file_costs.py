"""What a file costs on a target, and what it computes: all of it measured on the file."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.bundle.cpp_sources import kernel_bytes, with_margin
from edgeprune.bundle.microcontroller import scratch_bytes
from edgeprune.data.batches import samples_of
from edgeprune.export.convert import export_tflite
from edgeprune.export.diagnosis import ConversionError
from edgeprune.measure.latency import benchmark
from edgeprune.measure.predictions import samples_for_file
from edgeprune.measure.score import outputs_by_keras_name
from edgeprune.measure.size import file_size
from edgeprune.measure.tflm import measure_arena
from edgeprune.measure.vela import compile_for_npu
from edgeprune.quantization.training import quantize_aware
from edgeprune.schemes import Scheme, scheme_of
from edgeprune.targets import Target
from edgeprune.tflite.compact import compact
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.four_bits import with_four_bit_weights
from edgeprune.tflite.runtime import Runtime
from edgeprune.types import Arrays, Model, Quantization

QuantizationLike = Quantization | Scheme | None

_TIMED_RUNS, _TIMED_SECONDS = 30, 3.0
# What a file is calibrated on of which only the costs are looked at: few samples, and more where a narrow layer
# computes nothing but zeros for them, so that it has no range.
_COST_SAMPLES = (2, 64)


def file_costs(path: Path, target: Target, limits: Collection[str]) -> dict[str, float]:
    """Measure what limits are for.

    Args:
        path: the .tflite file.
        target: the device. A phone's or a computer's latency is this machine's, on LiteRT; that of an NPU is Vela's
            estimate. Flash counts the file and an estimate of the code, RAM the arena with its margin.
        limits: names of the limits; what is not limited and takes long is not measured.

    Returns:
        Figures by the limits' names without `max_`; `"size"` and `"gzip_size"` always, `"arena"` with `"ram"`.

    Raises:
        ImportError: the target's runtime is not installed.
        ValueError: the file does not run on it.
    """
    size = file_size(path)
    figures: dict[str, float] = {"size": size.bytes, "gzip_size": size.gzip_bytes}
    if target.kind == "npu" and {"max_flash", "max_latency_ms"} & set(limits):
        with tempfile.TemporaryDirectory() as folder:
            compiled = Path(folder) / "compiled.tflite"
            report = compile_for_npu(path, target.accelerator or "", compiled)
            operators = read_tflite(compiled).operator_counts
            figures["flash"] = compiled.stat().st_size + kernel_bytes(list(operators))
            figures["latency_ms"] = report.milliseconds
    elif "max_latency_ms" in limits:
        timed = benchmark([path], num_runs=_TIMED_RUNS, max_seconds=_TIMED_SECONDS)
        figures["latency_ms"] = timed.rows[0].milliseconds
    if target.kind == "microcontroller":
        figures["flash"] = path.stat().st_size + kernel_bytes(list(read_tflite(path).operator_counts))
        if "max_ram" in limits:
            figures["arena"] = measure_arena(path).bytes
            figures["ram"] = with_margin(int(figures["arena"]), scratch_bytes(path))
    return figures


def untrained_costs(
    model: Model, quantization: QuantizationLike, samples: Arrays, target: Target, limits: Collection[str]
) -> dict[str, float]:
    """What the file of a model will cost: its size, arena and time follow from the shapes, not from the weights.

    Args:
        model: a model with weights of any kind; its file is calibrated with a few samples alone.
        quantization: of the file, as `export_tflite` accepts it.
        samples: inputs.
        target: as `file_costs` accepts it.
        limits: as `file_costs` accepts them.

    Raises:
        ValueError: the model cannot be converted.
    """
    with untrained_file(model, quantization, samples, target) as path:
        return file_costs(path, target, limits)


@contextlib.contextmanager
def untrained_file(model: Model, quantization: QuantizationLike, samples: Arrays, target: Target) -> Iterator[Path]:
    """The file of a model, calibrated with a few samples alone, until the context ends.

    Raises:
        ValueError: the model cannot be converted.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        try:
            _write_for_costs(model, path, quantization, samples_of(samples, _COST_SAMPLES[0]), target)
        except ConversionError:
            _write_for_costs(model, path, quantization, samples_of(samples, _COST_SAMPLES[1]), target)
        yield path


def _write_for_costs(model: Model, path: Path, quantization: QuantizationLike, samples: Arrays, target: Target) -> None:
    scheme = scheme_of(quantization)
    given: dict[str, Any] = {"calibration": "min-max", "target": target, "verify": False, "verbose": False}
    if scheme.weight_bits == 4 and not scheme.layers:  # to solve for weights takes long, and changes no size
        wide = replace(scheme, weight_bits=8)
        export_tflite(model, path, wide, samples, **given)
        readers = target.four_bit_operators(scheme.per_channel_dense)
        narrow, _ = with_four_bit_weights(path.read_bytes(), readers, nearest=True)
        path.write_bytes(compact(narrow, model.name))
        return
    if scheme.has_four_bits:
        model = quantize_aware(model, scheme, calibration=samples)
    export_tflite(model, path, quantization, samples, **given)


def file_outputs(path: Path, model: Model, samples: Arrays) -> dict[str, np.ndarray]:
    """What a file computes, by the names that its Keras model has for the outputs.

    Args:
        path: the .tflite file.
        model: the model that it was converted from, or one that returns as many outputs.
        samples: inputs as the model expects them.
    """
    runtime = Runtime(path)
    outputs = runtime.run_all(samples_for_file(runtime, model, samples), f"Running {path.name}")
    return outputs_by_keras_name(outputs, model, samples)
