"""What developers of apps get on a phone and on a computer alike: metadata, golden vectors, a class in Python, figures.

The file gets its metadata; golden vectors prove another machine against what was computed here. `phone` and `computer`
write the rest.
"""

from __future__ import annotations

import json
import keyword
import platform
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.bundle.content import BundleContent, Preprocessing, distinct
from edgeprune.bundle.rendering import render
from edgeprune.measure.latency import benchmark
from edgeprune.measure.machine import this_machine
from edgeprune.measure.size import CompressedSize, FileSize, compressed_size, file_size
from edgeprune.tflite.file import TfliteFile, read_tflite
from edgeprune.tflite.metadata import ModelMetadata, TensorMetadata, write_metadata
from edgeprune.tflite.runtime import Port, Runtime
from edgeprune.types import Model

_LATENCY_RUNS = 50
_LATENCY_SECONDS = 2.0
# How far another processor's outputs may lie from ours, relative to the largest output: the rounding of float32 in
# another order, of weights in float16, of activations that are quantized at run time. A GPU computes in float16.
_TOLERANCE = {None: 1e-4, "float16": 1e-3, "dynamic": 0.05, "int8": 0.05, "int4": 0.05, "int16x8": 0.01}
_GPU_TOLERANCE = 0.02
# Words Kotlin keeps to itself (https://kotlinlang.org/docs/keyword-reference.html), hard keywords only.
_KOTLIN_WORDS = frozenset(
    """
    as break class continue do else false for fun if in interface is null object package return super this throw true
    try typealias typeof val var when while
    """.split()
)
# The type of the values that an app passes and reads, for each type that a file holds.
_VALUES = {
    "float32": "float32",
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}
# Those that CompiledModel, which runs models on a GPU, has buffers for.
_GPU_TYPES = ("float32", "int32", "int64", "bool")
# The runtime's own class, which the generated one must not be called like.
_LITERT_MODEL = "CompiledModel"


@dataclass(frozen=True)
class Application:
    """What is written of a model for apps.

    Attributes:
        content: what the bundle is written from.
        inputs: the inputs, in the file's order.
        outputs: the outputs, in the file's order.
        golden: golden vectors.
        class_name: the name of the class that calls the model.
    """

    content: BundleContent
    inputs: list[Interface]
    outputs: list[Interface]
    golden: Golden
    class_name: str


def write_application(content: BundleContent) -> Application:
    """Write what apps on every device need: metadata into the file, labels, golden vectors and the class in Python.

    Args:
        content: what the bundle is written from. Metadata are written into its file.

    Returns:
        What further code is written from.

    Raises:
        ValueError: an input or an output is of a type that no code is written for.
    """
    inputs, outputs = _interfaces(content, content.runtime)
    write_metadata(content.tflite, _metadata(content, inputs, outputs))
    if content.labels is not None:
        write_text(content.folder / "labels.txt", "".join(f"{label}\n" for label in content.labels))
    golden = _golden(content, content.runtime, inputs, outputs)
    application = Application(content, inputs, outputs, golden, _class_name(content.identifier))
    _write_golden(application)
    write_text(
        content.folder / "python/call_model.py", render("python/call_model.py.jinja", **python_values(application))
    )
    return application


def python_values(application: Application) -> dict[str, Any]:
    """What the templates ask of a model that is called from Python."""
    content = application.content
    return {
        "class_name": application.class_name,
        "name": content.name,
        "version": content.version,
        "description": content.description,
        "target": content.target.description,
        "labels": content.labels or (),
        "labelled": next((entry.port.name for entry in application.outputs if entry.is_list_of_classes), None),
        "inputs": [_python(entry) for entry in application.inputs],
        "outputs": [_python(entry) for entry in application.outputs],
        "count": application.golden.count,
        "stateful": read_tflite(content.tflite).stateful,
        "notes": content.notes,
    }


@dataclass(frozen=True)
class Interface:
    """An input or output as the generated classes have it.

    Attributes:
        port: the file's input or output.
        index: its number.
        identifier: its name in the code.
        preprocessing: how raw values are normalised, `None` if they are not.
        labels: whether the labels stand for its last axis.
    """

    port: Port
    index: int
    identifier: str
    preprocessing: Preprocessing | None
    labels: bool

    @property
    def values(self) -> str:
        """The type of the values that an app passes or reads: real ones where the file holds them as integers."""
        return "float32" if self.port.quantized else _VALUES[self.port.dtype.name]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.port.shape[1:]

    @property
    def elements(self) -> int:
        """How many values one sample has."""
        return int(np.prod(self.port.shape))

    @property
    def is_list_of_classes(self) -> bool:
        """Whether it is one value for each label."""
        return self.labels and len(self.shape) == 1


@dataclass(frozen=True)
class Golden:
    """Golden vectors as the generated classes accept and return them: name to `(count, ...)`."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    tolerances: dict[str, float]

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.inputs.values())))


def _interfaces(content: BundleContent, runtime: Runtime) -> tuple[list[Interface], list[Interface]]:
    known = _GPU_TYPES if content.target.accelerator == "gpu" else tuple(_VALUES)
    for port in (*runtime.inputs.values(), *runtime.outputs.values()):
        if port.dtype.name not in known:
            raise ValueError(
                f"{port.name!r} of model {content.name!r} has values of type {port.dtype.name}, for which no code is "
                f"written; cast it in the model to one of {', '.join(known)}."
            )
    labelled = _labelled_output(content, runtime)
    inputs = list(runtime.inputs.values())
    outputs = list(runtime.outputs.values())
    return (
        [
            Interface(port, index, name, _preprocessing_of(content.preprocessing, port), False)
            for index, (port, name) in enumerate(zip(inputs, _identifiers(inputs, "input"), strict=True))
        ],
        [
            Interface(port, index, name, None, port.name == labelled)
            for index, (port, name) in enumerate(zip(outputs, _identifiers(outputs, "output"), strict=True))
        ],
    )


def _labelled_output(content: BundleContent, runtime: Runtime) -> str | None:
    """The first output that has a value for each label."""
    if not content.labels:
        return None
    fits = [name for name, port in runtime.outputs.items() if port.shape[-1:] == (len(content.labels),)]
    return fits[0] if fits else None


def _preprocessing_of(preprocessing: Preprocessing | None, port: Port) -> Preprocessing | None:
    """The preprocessing, where the input holds real values and has its channels."""
    real = port.quantized or port.dtype.kind == "f"
    if preprocessing is None or not real or len(preprocessing.mean) not in (1, port.shape[-1]):
        return None
    return preprocessing


def _identifiers(ports: Sequence[Port], default: str) -> list[str]:
    """A Kotlin name for each port, all different: `camelCase` of the name's ASCII letters and digits."""
    return distinct(_identifier(port.name, default) for port in ports)


def _identifier(name: str, default: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[0-9A-Za-z]+", plain)
    if not words:
        return default
    first, *rest = words
    joined = first[0].lower() + first[1:] + "".join(word[0].upper() + word[1:] for word in rest)
    return f"{default}{joined[0].upper()}{joined[1:]}" if joined[0].isdigit() or joined in _KOTLIN_WORDS else joined


def _class_name(identifier: str) -> str:
    """`my_model` as `MyModel`; the ending keeps it apart from classes of Kotlin's own, such as `List`."""
    name = "".join(word[:1].upper() + word[1:] for word in identifier.split("_"))
    return name if name.endswith("Model") and name != _LITERT_MODEL else f"{name}Model"


def _metadata(content: BundleContent, inputs: Sequence[Interface], outputs: Sequence[Interface]) -> ModelMetadata:
    return ModelMetadata(
        name=content.name,
        description=content.description,
        version=content.version,
        author=content.author,
        inputs=tuple(_tensor_metadata(content, entry) for entry in inputs),
        outputs=tuple(_tensor_metadata(content, entry) for entry in outputs),
    )


def _tensor_metadata(content: BundleContent, entry: Interface) -> TensorMetadata:
    seen = content.samples.get(entry.port.name)
    real = seen is not None and np.asarray(seen).dtype.kind == "f"
    limits = _range(entry.port)
    return TensorMetadata(
        name=entry.port.name,
        description=shape_text(entry.shape),
        image=image_of(entry.port) if real else None,
        mean=entry.preprocessing.mean if entry.preprocessing else (),
        std=entry.preprocessing.std if entry.preprocessing else (),
        minimum=limits[:1],
        maximum=limits[1:],
        labels=tuple(content.labels or ()) if entry.labels else None,
    )


def _range(port: Port) -> tuple[float, ...]:
    """The least and the largest real value that a quantized input or output can have; empty for floats."""
    if not port.quantized:
        return ()
    limits = np.iinfo(port.dtype)
    return tuple((limit - port.zero_point) * port.scale for limit in (limits.min, limits.max))


def image_of(port: Port) -> str | None:
    """`"rgb"` or `"grayscale"` where the shape is that of pixels; a single channel counts only if it is square."""
    if len(port.shape) != 4:
        return None
    _, height, width, channels = port.shape
    if channels == 3:
        return "rgb"
    return "grayscale" if channels == 1 and height == width and height > 1 else None


def shape_text(shape: Sequence[int]) -> str:
    """A shape in words."""
    return f"{' x '.join(map(str, shape))} values" if shape else "one value"


def _golden(
    content: BundleContent, runtime: Runtime, inputs: Sequence[Interface], outputs: Sequence[Interface]
) -> Golden:
    """Run the file on the golden inputs, passed through the same arithmetic as in the generated classes."""
    raw, given = {}, {}
    for entry in inputs:
        name = entry.port.name
        sample = np.asarray(content.samples[name])
        raw[name] = entry.preprocessing.undo(sample) if entry.preprocessing else sample.astype(entry.values)
        given[name] = entry.preprocessing.apply(raw[name]) if entry.preprocessing else raw[name]
    made = runtime.run_all(given, "Golden vectors")
    file = read_tflite(content.tflite)
    tolerances = {
        entry.port.name: _tolerance(content, file, entry.port, made[entry.port.name])
        for entry in outputs
        if entry.values == "float32"
    }
    return Golden(raw, made, tolerances)


def _tolerance(content: BundleContent, file: TfliteFile, port: Port, values: np.ndarray) -> float:
    relative = _GPU_TOLERANCE if content.target.accelerator == "gpu" else _TOLERANCE[file.quantization]
    # Two steps: processors round to even or away from zero, in each of several layers.
    steps = 2 * file.output_steps.get(port.index, 0.0)
    return max(relative * float(np.abs(values).max()), steps, 1e-6)


def _write_golden(application: Application) -> None:
    folder, golden = application.content.folder / "golden", application.golden
    folder.mkdir()
    parts = [
        *((entry, golden.inputs[entry.port.name]) for entry in application.inputs),
        *((entry, golden.outputs[entry.port.name]) for entry in application.outputs),
    ]
    arrays = [np.ascontiguousarray(values, np.dtype(entry.values).newbyteorder("<")) for entry, values in parts]
    samples = (array[sample].tobytes() for sample in range(golden.count) for array in arrays)
    (folder / "golden.bin").write_bytes(b"".join(samples))

    def layout(entry: Interface) -> dict[str, Any]:
        facts = {"name": entry.port.name, "type": entry.values, "shape": list(entry.shape)}
        is_tolerant = entry in application.outputs and entry.port.name in golden.tolerances
        return facts | ({"tolerance": golden.tolerances[entry.port.name]} if is_tolerant else {})

    text = {
        "about": "golden.bin holds, for each sample, its inputs and then its outputs, one after the other, row by row, "
        "little-endian, as the generated classes take and return them: before normalising, after de-quantizing.",
        "samples": golden.count,
        "inputs": [layout(entry) for entry in application.inputs],
        "outputs": [layout(entry) for entry in application.outputs],
    }
    write_text(folder / "golden.json", json.dumps(text, indent=2, ensure_ascii=False) + "\n")


def _python_name(identifier: str) -> str:
    return f"{identifier}_" if keyword.iskeyword(identifier) or identifier == "self" else identifier


def _python(entry: Interface) -> dict[str, Any]:
    """What the templates of Python ask of an input or output."""
    facts: dict[str, Any] = {"name": entry.port.name, "shape": list(entry.shape)}
    if entry.port.quantized:
        facts |= {"scale": entry.port.scale, "zero_point": entry.port.zero_point}
    if entry.preprocessing:
        facts |= {"mean": list(entry.preprocessing.mean), "std": list(entry.preprocessing.std)}
    return {
        "facts": repr(facts),
        "name": entry.port.name,
        "argument": _python_name(entry.identifier),
        "doc": interface_doc(entry),
    }


def interface_doc(entry: Interface) -> str:
    """An input or output in a sentence."""
    port = entry.port
    text = f"{port.name}: {shape_text(entry.shape)}"
    if entry.preprocessing:
        text += ", raw: they are normalised here"
    if port.quantized:
        text += f", in real units; the file holds {port.dtype.name}"
    return f"{text}."


def app_figures(content: BundleContent) -> dict[str, Any]:
    """What is measured of a file for apps: sizes, latency and the machine, zeros and channels."""
    timed = benchmark([content.tflite], num_runs=_LATENCY_RUNS, max_seconds=_LATENCY_SECONDS)
    weights = [row for row in content.verification.weights if row.file_zeros is not None]
    elements = sum(row.elements for row in weights)
    parameters = content.verification.parameters
    return {
        "size": _size(content.tflite).to_dict(),
        "latency": {
            "milliseconds": timed.rows[0].milliseconds,
            "interquartile_range": timed.rows[0].spread,
            "runs": timed.num_runs,
            "threads": timed.num_threads,
            "machine": machine(),
        },
        "pruning": {
            "zeros_in_the_file": sum(row.file_zeros or 0 for row in weights) / elements if elements else 0.0,
            "nonzero_parameters": parameters.nonzero if parameters else None,
            "channels": [f"{name} {count}" for name, count in _channels(content.model).items()],
        },
    }


def _size(path: Path) -> CompressedSize | FileSize:
    """The sizes; that of an update over the air too where its compression is installed."""
    try:
        return compressed_size(path)
    except ImportError:
        return file_size(path)


def _channels(model: Model) -> dict[str, int]:
    """The channels or units of each layer that makes new ones."""
    widths = {}
    for layer in flavor.layers_of(model):
        width = getattr(layer, "filters", None) or getattr(layer, "units", None)
        if isinstance(width, int):
            widths[layer.name] = width
    return widths


def machine() -> str:
    """The machine that latencies are measured on: processor, cores, system and runtime.

    Example:
        >>> "LiteRT" in machine()
        True
    """
    measured_on = this_machine()
    return f"{measured_on.cpu}, {measured_on.cores} cores, {platform.system()}, {measured_on.runtime}"


def write_text(path: Path, text: str) -> None:
    """Write a file of a bundle, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
