"""Write what an Android app's developer needs beside the .tflite file: code that calls it, and a test.

A Kotlin class normalises, quantizes and de-quantizes as the file needs it, and a JUnit test compares a phone with the
golden vectors that were computed here. `bundle.export_bundle` calls `write`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeprune.bundle.application import (
    Application,
    Golden,
    Interface,
    app_figures,
    image_of,
    interface_doc,
    shape_text,
    write_application,
    write_text,
)
from edgeprune.bundle.content import BundleContent
from edgeprune.bundle.rendering import c_float, render, require_jinja2
from edgeprune.tflite.file import read_tflite

PACKAGE = "edgeprune.models"
# The Maven release of the runtime, com.google.ai.edge.litert:litert, of the same sources as the Python wheel that the
# file was proven on; it has the Interpreter for the CPU, CompiledModel for the GPU, and needs Android 7 (API 24).
LITERT = "2.3.0"
MIN_SDK = 24

# The JVM allows 64 KB of code in a function, so long lists of labels are made by several.
_LABELS_IN_A_FUNCTION = 500
# How ByteBuffers and CompiledModel's buffers are written and read, for each type in the file.
_KOTLIN = {
    "float32": ("putFloat(value)", "getFloat()", "Float"),
    "int8": ("put(value.toByte())", "get().toInt()", None),
    "uint8": ("put(value.toByte())", "get().toInt() and 0xFF", None),
    "int16": ("putShort(value.toShort())", "getShort().toInt()", None),
    "int32": ("putInt(value)", "getInt()", "Int"),
    "int64": ("putLong(value)", "getLong()", "Long"),
    "bool": ("put(if (value) 1 else 0)", "get().toInt() != 0", "Boolean"),
}
# How Kotlin holds the values of an app, and reads them from golden vectors.
_ARRAYS = {
    "float32": ("FloatArray", "getFloat()"),
    "int32": ("IntArray", "getInt()"),
    "int64": ("LongArray", "getLong()"),
    "bool": ("BooleanArray", "get().toInt() != 0"),
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
        ValueError: an input or an output is of a type that no code is written for.
    """
    notes = ["The latency was measured on a CPU; no GPU was run."] if content.target.accelerator == "gpu" else []
    _write_code(write_application(content), [*content.notes, *notes])
    return app_figures(content) | {"notes": notes}


def _write_code(application: Application, notes: list[str]) -> None:
    content, class_name = application.content, application.class_name
    inputs = [_kotlin(entry, application.golden) for entry in application.inputs]
    outputs = [_kotlin(entry, application.golden) for entry in application.outputs]
    literals = [_kotlin_string(label) for label in content.labels or ()]
    labelled = [entry.identifier for entry in application.outputs if entry.is_list_of_classes]
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
        "labelled": labelled[0] if labelled else None,
        "argb": _argb(application),
        "gpu": content.target.accelerator == "gpu",
        "stateful": read_tflite(content.tflite).stateful,
        "count": application.golden.count,
        "notes": notes,
        "litert": LITERT,
        "min_sdk": MIN_SDK,
    }
    package = Path(*PACKAGE.split("."))
    android = content.folder / "android"
    for template, path in {
        "Model.kt": android / "src/main/kotlin" / package / f"{class_name}.kt",
        "ModelTest.kt": android / "src/androidTest/kotlin" / package / f"{class_name}Test.kt",
        "dependencies.gradle.kts": android / "dependencies.gradle.kts",
        "README.md": content.folder / "README.md",
    }.items():
        write_text(path, render(f"phone/{template}", **values))


def _kotlin(entry: Interface, golden: Golden) -> dict[str, Any]:
    """What the templates ask of an input or output."""
    port = entry.port
    put, get, buffer_type = _KOTLIN[port.dtype.name]
    array, read = _ARRAYS[entry.values]
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
    size = f"{entry.identifier} expects {shape_text(entry.shape)}, which is {entry.elements}; got "
    return {
        "index": entry.index,
        "identifier": entry.identifier,
        "name": _kotlin_string(port.name),
        "array": array,
        "elements": entry.elements,
        "bytes": entry.elements * port.dtype.itemsize,
        "doc": interface_doc(entry),
        "size_error": _kotlin_string(size),
        "encode": put,
        "decode": get,
        "write": f"write{buffer_type}",
        "read": f"read{buffer_type}",
        "mean": [repr(value) for value in preprocessing.mean] if preprocessing else [],
        "std": [repr(value) for value in preprocessing.std] if preprocessing else [],
        "golden": f"golden.{read}",
        "tolerance": c_float(golden.tolerances.get(port.name, 0.0)),
    }


def _argb(application: Application) -> dict[str, Any] | None:
    """What turns a bitmap into the input; only where it is known that the model starts from pixels of 0 to 255."""
    first, *others = application.inputs
    if others or first.preprocessing is None or image_of(first.port) is None:
        return None
    height, width, channels = first.shape
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
