"""Write what an app's developer needs beside the .tflite file: code that calls it, and proof that it computes right.

The file gets its metadata; a Kotlin class normalises, quantizes and de-quantizes as the file needs it; golden vectors
and a JUnit test compare a phone with what was computed here. For a Raspberry Pi the same is there in Python.
`bundle.export_bundle` calls `write`.
"""

from __future__ import annotations

import importlib.metadata
import json
import keyword
import os
import platform
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.export.bundle_content import BundleContent, Preprocessing, distinct
from edgeprune.export.metadata import ModelMetadata, TensorMetadata, write_metadata
from edgeprune.export.rendering import c_float, render, require_jinja2
from edgeprune.measure.latency import benchmark
from edgeprune.measure.runtime import Port, Runtime
from edgeprune.measure.size import CompressedSize, FileSize, compressed_size, file_size
from edgeprune.measure.tflite_file import TfliteFile, read_tflite

PACKAGE = "edgeprune.models"
# The Maven release of the runtime, com.google.ai.edge.litert:litert, of the same sources as the Python wheel that the
# file was proven on; it has the Interpreter for the CPU, CompiledModel for the GPU, and wants Android 7 (API 24).
LITERT = "2.3.0"
MIN_SDK = 24

# The runtime's own class, which the generated one must not be called like.
_LITERT_MODEL = "CompiledModel"
# The JVM allows 64 KB of code in a function, so long lists of labels are made by several.
_LABELS_IN_A_FUNCTION = 500
_LATENCY_RUNS = 50
_LATENCY_SECONDS = 2.0
# How far another processor's outputs may lie from ours, relative to the largest output: the rounding of float32 in
# another order, of weights in float16, of activations that are quantized at run time. A GPU computes in float16.
_TOLERANCE = {None: 1e-4, "float16": 1e-3, "dynamic": 0.05, "int8": 0.05, "int16x8": 0.01}
_GPU_TOLERANCE = 0.02
# Words Kotlin keeps to itself (https://kotlinlang.org/docs/keyword-reference.html), hard keywords only.
_KOTLIN_WORDS = frozenset(
    """
    as break class continue do else false for fun if in interface is null object package return super this throw true
    try typealias typeof val var when while
    """.split()
)
# How the class takes and gives values, and how ByteBuffers and CompiledModel's buffers are written and read.
_KOTLIN = {
    "float32": ("FloatArray", "putFloat(value)", "getFloat()", "Float"),
    "int8": ("IntArray", "put(value.toByte())", "get().toInt()", None),
    "uint8": ("IntArray", "put(value.toByte())", "get().toInt() and 0xFF", None),
    "int16": ("IntArray", "putShort(value.toShort())", "getShort().toInt()", None),
    "int32": ("IntArray", "putInt(value)", "getInt()", "Int"),
    "int64": ("LongArray", "putLong(value)", "getLong()", "Long"),
    "bool": ("BooleanArray", "put(if (value) 1 else 0)", "get().toInt() != 0", "Boolean"),
}
# How golden vectors hold what the class takes: the type in the file, and how Kotlin reads it.
_GOLDEN = {
    "FloatArray": ("float32", "getFloat()"),
    "IntArray": ("int32", "getInt()"),
    "LongArray": ("int64", "getLong()"),
    "BooleanArray": ("bool", "get().toInt() != 0"),
}


def check_installed() -> None:
    """Say what to install where something is missing that phone bundles need.

    Raises:
        ImportError: the templates cannot be filled in.
    """
    require_jinja2()


def write(content: BundleContent) -> dict[str, Any]:
    """Write the phone's part of a bundle.

    Args:
        content: what the bundle is written from. Metadata are written into its file.

    Returns:
        What was measured, for the model card: sizes, latency and the machine, zeros and channels.

    Raises:
        ValueError: an input or an output is of a type that Kotlin has no array for.
    """
    ports = _ports(content, Runtime(content.tflite))
    write_metadata(content.tflite, _metadata(content, ports))
    runtime = Runtime(content.tflite)
    if content.labels is not None:
        _write(content.folder / "labels.txt", "".join(f"{label}\n" for label in content.labels))
    golden = _golden(content, runtime, ports)
    _write_golden(content, golden, ports)
    _write_code(content, golden, ports)
    return _figures(content)


@dataclass(frozen=True)
class _Interface:
    """An input or output as the Kotlin class has it.

    Attributes:
        port: the file's input or output.
        index: its number.
        identifier: its name in Kotlin.
        preprocessing: how raw values are normalised, `None` if they are not.
        labels: whether the labels stand for its last axis.
    """

    port: Port
    index: int
    identifier: str
    preprocessing: Preprocessing | None
    labels: bool

    @property
    def array(self) -> str:
        return "FloatArray" if self.port.quantized else _KOTLIN[self.port.dtype.name][0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.port.shape[1:]

    @property
    def elements(self) -> int:
        return int(np.prod(self.port.shape))


@dataclass(frozen=True)
class _Ports:
    inputs: list[_Interface]
    outputs: list[_Interface]


def _ports(content: BundleContent, runtime: Runtime) -> _Ports:
    known = [name for name, entry in _KOTLIN.items() if content.target.accelerator != "gpu" or entry[3]]
    for port in (*runtime.inputs.values(), *runtime.outputs.values()):
        if port.dtype.name not in known:
            raise ValueError(
                f"{port.name!r} of model {content.name!r} has values of type {port.dtype.name}, for which no Kotlin is "
                f"written; cast it in the model to one of {', '.join(known)}."
            )
    labelled = _labelled_output(content, runtime)
    inputs = list(runtime.inputs.values())
    outputs = list(runtime.outputs.values())
    return _Ports(
        [
            _Interface(port, index, name, _preprocessing_of(content.preprocessing, port), False)
            for index, (port, name) in enumerate(zip(inputs, _identifiers(inputs, "input"), strict=True))
        ],
        [
            _Interface(port, index, name, None, port.name == labelled)
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


def _metadata(content: BundleContent, ports: _Ports) -> ModelMetadata:
    return ModelMetadata(
        name=content.name,
        description=content.description,
        version=content.version,
        author=content.author,
        inputs=tuple(_tensor_metadata(content, entry) for entry in ports.inputs),
        outputs=tuple(_tensor_metadata(content, entry) for entry in ports.outputs),
    )


def _tensor_metadata(content: BundleContent, entry: _Interface) -> TensorMetadata:
    seen = content.samples.get(entry.port.name)
    real = seen is not None and np.asarray(seen).dtype.kind == "f"
    limits = _range(entry.port)
    return TensorMetadata(
        name=entry.port.name,
        description=_shape_text(entry.shape),
        image=_image(entry.port) if real else None,
        mean=entry.preprocessing.mean if entry.preprocessing else (),
        std=entry.preprocessing.std if entry.preprocessing else (),
        minimum=limits[:1],
        maximum=limits[1:],
        labels=tuple(content.labels) if entry.labels else None,
    )


def _range(port: Port) -> tuple[float, ...]:
    """The least and the largest real value that a quantized input or output can have; empty for floats."""
    if not port.quantized:
        return ()
    limits = np.iinfo(port.dtype)
    return tuple((limit - port.zero_point) * port.scale for limit in (limits.min, limits.max))


def _image(port: Port) -> str | None:
    """`"rgb"` or `"grayscale"` where the shape is that of pixels; a single channel counts only if it is square."""
    if len(port.shape) != 4:
        return None
    _, height, width, channels = port.shape
    if channels == 3:
        return "rgb"
    return "grayscale" if channels == 1 and height == width and height > 1 else None


def _shape_text(shape: Sequence[int]) -> str:
    return f"{' x '.join(map(str, shape))} values" if shape else "one value"


@dataclass(frozen=True)
class _Golden:
    """Golden vectors as the Kotlin class takes and gives them: name to `(count, ...)`."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    tolerances: dict[str, float]

    @property
    def count(self) -> int:
        return len(next(iter(self.inputs.values())))


def _golden(content: BundleContent, runtime: Runtime, ports: _Ports) -> _Golden:
    """Run the file on the golden inputs, passed through the same arithmetic as in Kotlin."""
    raw, given = {}, {}
    for entry in ports.inputs:
        name = entry.port.name
        sample = np.asarray(content.samples[name])
        raw[name] = entry.preprocessing.undo(sample) if entry.preprocessing else sample.astype(_GOLDEN[entry.array][0])
        given[name] = entry.preprocessing.apply(raw[name]) if entry.preprocessing else raw[name]
    outputs = runtime.run_all(given, "Golden vectors")
    file = read_tflite(content.tflite)
    tolerances = {
        entry.port.name: _tolerance(content, file, entry.port, outputs[entry.port.name])
        for entry in ports.outputs
        if entry.array == "FloatArray"
    }
    return _Golden(raw, outputs, tolerances)


def _tolerance(content: BundleContent, file: TfliteFile, port: Port, values: np.ndarray) -> float:
    relative = _GPU_TOLERANCE if content.target.accelerator == "gpu" else _TOLERANCE[file.quantization]
    # Two steps: processors round to even or away from zero, in each of several layers.
    steps = 2 * file.output_steps.get(port.index, 0.0)
    return max(relative * float(np.abs(values).max()), steps, 1e-6)


def _write_golden(content: BundleContent, golden: _Golden, ports: _Ports) -> None:
    folder = content.folder / "golden"
    folder.mkdir()
    parts = [
        *((entry, golden.inputs[entry.port.name]) for entry in ports.inputs),
        *((entry, golden.outputs[entry.port.name]) for entry in ports.outputs),
    ]
    arrays = [
        (entry, np.ascontiguousarray(values, np.dtype(_GOLDEN[entry.array][0]).newbyteorder("<")))
        for entry, values in parts
    ]
    samples = (array[sample].tobytes() for sample in range(golden.count) for _, array in arrays)
    (folder / "golden.bin").write_bytes(b"".join(samples))

    def layout(entry: _Interface) -> dict[str, Any]:
        facts = {"name": entry.port.name, "type": _GOLDEN[entry.array][0], "shape": list(entry.shape)}
        is_tolerant = entry in ports.outputs and entry.port.name in golden.tolerances
        return facts | ({"tolerance": golden.tolerances[entry.port.name]} if is_tolerant else {})

    text = {
        "about": "golden.bin holds, for each sample, its inputs and then its outputs, one after the other, row by row, "
        "little-endian, as the Kotlin class takes and gives them: before normalising, after de-quantizing.",
        "samples": golden.count,
        "inputs": [layout(entry) for entry in ports.inputs],
        "outputs": [layout(entry) for entry in ports.outputs],
    }
    _write(folder / "golden.json", json.dumps(text, indent=2, ensure_ascii=False) + "\n")


def _write_code(content: BundleContent, golden: _Golden, ports: _Ports) -> None:
    gpu = content.target.accelerator == "gpu"
    class_name = _class_name(content.identifier)
    inputs = [_kotlin(entry, golden) for entry in ports.inputs]
    outputs = [_kotlin(entry, golden) for entry in ports.outputs]
    literals = [_kotlin_string(label) for label in content.labels or ()]
    labelled = [entry for entry in ports.outputs if entry.labels and len(entry.shape) == 1]
    values = {
        "package": PACKAGE,
        "class_name": class_name,
        "identifier": content.identifier,
        "name": content.name,
        "version": content.version,
        "description": content.description,
        "target": content.target.description,
        "inputs": inputs,
        "outputs": outputs,
        "labels": literals,
        "label_parts": [
            literals[start : start + _LABELS_IN_A_FUNCTION] for start in range(0, len(literals), _LABELS_IN_A_FUNCTION)
        ],
        "labelled": labelled[0].identifier if labelled else None,
        "argb": _argb(content, ports),
        "gpu": gpu,
        "stateful": read_tflite(content.tflite).stateful,
        "count": golden.count,
        "litert": LITERT,
        "min_sdk": MIN_SDK,
    }
    package = Path(*PACKAGE.split("."))
    android = content.folder / "android"
    for template, path in {
        "Model.kt": android / "src/main/kotlin" / package / f"{class_name}.kt",
        "ModelTest.kt": android / "src/androidTest/kotlin" / package / f"{class_name}Test.kt",
        "dependencies.gradle.kts": android / "dependencies.gradle.kts",
        "call_model.py.jinja": content.folder / "python/call_model.py",
        "README.md": content.folder / "README.md",
    }.items():
        _write(path, render(f"phone/{template}", **values))


def _kotlin(entry: _Interface, golden: _Golden) -> dict[str, Any]:
    """What the templates ask of an input or output."""
    port = entry.port
    array, put, get, buffer_type = _KOTLIN[port.dtype.name]
    if port.quantized:
        limits = np.iinfo(port.dtype)
        scale = c_float(port.scale)
        quantized = f"quantize(value, {scale}, {port.zero_point}, {limits.min}.0, {limits.max}.0)"
        put = put.replace("value", quantized)
        get = f"(({get.replace('get', f'output{entry.index}.get', 1)}) - {port.zero_point}) * {scale}".replace(
            "- -", "+ "
        )
    else:
        get = get.replace("get", f"output{entry.index}.get", 1)
    preprocessing = entry.preprocessing
    size = f"{entry.identifier} takes {_shape_text(entry.shape)}, which makes {entry.elements}; got "
    return {
        "index": entry.index,
        "identifier": entry.identifier,
        "name": _kotlin_string(port.name),
        "array": entry.array,
        "elements": entry.elements,
        "bytes": entry.elements * port.dtype.itemsize,
        "doc": _doc(entry),
        "python": _python(entry),
        "python_name": _python_name(entry.identifier),
        "size_error": _kotlin_string(size),
        "encode": put,
        "decode": get,
        "write": f"write{buffer_type}",
        "read": f"read{buffer_type}",
        "mean": [repr(value) for value in preprocessing.mean] if preprocessing else [],
        "std": [repr(value) for value in preprocessing.std] if preprocessing else [],
        "golden": f"golden.{_GOLDEN[entry.array][1]}",
        "tolerance": c_float(golden.tolerances.get(port.name, 0.0)),
    }


def _python_name(identifier: str) -> str:
    return f"{identifier}_" if keyword.iskeyword(identifier) or identifier == "self" else identifier


def _python(entry: _Interface) -> str:
    """What `call_model.py` has to know of an input or output, as a dict of Python."""
    facts: dict[str, Any] = {"name": entry.port.name, "shape": list(entry.shape)}
    if entry.port.quantized:
        facts |= {"scale": entry.port.scale, "zero_point": entry.port.zero_point}
    if entry.preprocessing:
        facts |= {"mean": list(entry.preprocessing.mean), "std": list(entry.preprocessing.std)}
    return repr(facts)


def _doc(entry: _Interface) -> str:
    port = entry.port
    text = f"{port.name}: {_shape_text(entry.shape)}"
    if entry.preprocessing:
        text += ", raw: they are normalised here"
    if port.quantized:
        text += f", in real units; the file holds {port.dtype.name}"
    return f"{text}."


def _argb(content: BundleContent, ports: _Ports) -> dict[str, Any] | None:
    """What turns a bitmap into the input; only where it is known that the model starts from pixels of 0 to 255."""
    if len(ports.inputs) != 1 or ports.inputs[0].preprocessing is None or _image(ports.inputs[0].port) is None:
        return None
    height, width, channels = ports.inputs[0].shape
    words = "red, green and blue" if channels == 3 else "brightness"
    return {"height": height, "width": width, "channels": channels, "channels_doc": words}


def _kotlin_string(text: str) -> str:
    """A string literal of Kotlin: `$` would begin a template, and line breaks cannot stand in one."""
    plain = {'"': r"\"", "\\": r"\\", "$": r"\$"}
    escaped = (
        plain.get(letter) or (letter if letter.isprintable() else "".join(f"\\u{unit:04x}" for unit in _utf16(letter)))
        for letter in text
    )
    return f'"{"".join(escaped)}"'


def _utf16(letter: str) -> list[int]:
    return np.frombuffer(letter.encode("utf-16-le", "surrogatepass"), "<u2").tolist()


def _figures(content: BundleContent) -> dict[str, Any]:
    timed = benchmark([content.tflite], runs=_LATENCY_RUNS, max_seconds=_LATENCY_SECONDS)
    weights = [row for row in content.verification.weights if row.file_zeros is not None]
    elements = sum(row.elements for row in weights)
    parameters = content.verification.parameters
    notes = ["The latency was measured on a CPU; no GPU was run."] if content.target.accelerator == "gpu" else []
    return {
        "size": _size(content.tflite).to_dict(),
        "latency": {
            "milliseconds": timed.rows[0].milliseconds,
            "interquartile_range": timed.rows[0].spread,
            "runs": timed.runs,
            "threads": timed.threads,
            "machine": machine(),
        },
        "pruning": {
            "zeros_in_the_file": sum(row.file_zeros for row in weights) / elements if elements else 0.0,
            "nonzero_parameters": parameters.nonzero if parameters else None,
            "channels": [f"{name} {count}" for name, count in _channels(content.model).items()],
        },
        "notes": notes,
    }


def _size(path: Path) -> CompressedSize | FileSize:
    """The sizes; that of an update over the air too where its compression is installed."""
    try:
        return compressed_size(path)
    except ImportError:
        return file_size(path)


def _channels(model: Any) -> dict[str, int]:
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
    litert = importlib.metadata.version("ai-edge-litert")
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, LiteRT {litert}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
