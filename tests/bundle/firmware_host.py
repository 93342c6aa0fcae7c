"""Build and run the C++ of a bundle on this machine, with a library that stands in for TensorFlow Lite Micro.

The library's interpreter hands the model, the arena's size and the inputs to a script of Python, and gives out what the
real interpreter computes from them. It is compiled by itself, with TF_LITE_STATIC_MEMORY as the real one is, and that
macro decides where the fields of its tensors lie, as in the real header.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUB = Path(__file__).parent / "tflm_stub"
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
needs_cmake = pytest.mark.skipif(
    None in (shutil.which("g++"), shutil.which("cmake"), shutil.which("ar")), reason="there is no g++, cmake or ar"
)

STATIC_MEMORY = "-DTF_LITE_STATIC_MEMORY"
_TYPES = {
    "int8": "kTfLiteInt8",
    "uint8": "kTfLiteUInt8",
    "int16": "kTfLiteInt16",
    "int32": "kTfLiteInt32",
    "float32": "kTfLiteFloat32",
}
_WARNINGS = ["-Wall", "-Wextra", "-Wno-trigraphs", "-Werror", "-pedantic"]
# For each line runs all samples since the last reset, one after the other, as an interpreter that keeps its state does.
_SCRIPT = """
import sys
from pathlib import Path
import numpy as np
folder, compiled_from = Path({folder!r}), {compiled_from!r}
if compiled_from:  # no interpreter here has the NPU's operator
    from edgeprune.measure.integer_reference import integer_reference
    from edgeprune.tflite.runtime import Runtime
    ports = [(port.dtype, port.shape) for port in Runtime(compiled_from).inputs.values()]
else:
    from tflite_micro import runtime

def history(number, dtype, shape):
    return np.frombuffer((folder / f"input{{number}}").read_bytes(), dtype).reshape(-1, *shape)

def reference_outputs():
    with integer_reference(compiled_from) as reference:
        return reference.run([history(number, *port)[-1] for number, port in enumerate(ports)])

def interpreter_outputs(arena_bytes, inputs, outputs):
    interpreter = runtime.Interpreter.from_bytes((folder / "model").read_bytes(), arena_size=arena_bytes)
    details = [interpreter.get_input_details(number) for number in range(inputs)]
    histories = [history(number, one["dtype"], one["shape"]) for number, one in enumerate(details)]
    for sample in zip(*histories):
        for number, values in enumerate(sample):
            interpreter.set_input(values, number)
        interpreter.invoke()
    return [interpreter.get_output(number) for number in range(outputs)]

for line in sys.stdin:
    outputs = reference_outputs() if compiled_from else interpreter_outputs(*map(int, line.split()))
    for number, output in enumerate(outputs):
        (folder / f"output{{number}}").write_bytes(output.tobytes())
    print("k", end="", flush=True)
"""


@functools.cache
def compile_library(folder, static_memory=True):
    """Compile what stands in for the library, once for a bundle; the library's own Makefile defines the macro."""
    from edgeprune.tflite.runtime import Runtime

    runtime = Runtime(folder / "model.tflite")
    types = {
        f"STUB_{word}_TYPES": ",".join(_TYPES[port.dtype.name] for port in ports.values())
        for word, ports in (("INPUT", runtime.inputs), ("OUTPUT", runtime.outputs))
    }
    options = [STATIC_MEMORY] if static_memory else []
    options += [f"-D{name}={value}" for name, value in (types | {"STUB_MODEL": namespace(folder)}).items()]
    source = STUB / "tensorflow/lite/micro/micro_interpreter.cc"
    output = folder.with_name(f"{folder.name} library {static_memory:d}.o")
    _compile([*options, f"-I{folder}", f"-I{STUB}", "-c", str(source), "-o", str(output)])
    return output


def compile_program(folder, program, output, *, options=(STATIC_MEMORY,), static_library=True):
    """Compile `example_main.cc` or `test_main.cc` of a bundle, with every warning an error, and link it."""
    library = compile_library(folder, static_library)
    sources = [str(folder / program), str(folder / "model_data.cc"), str(library)]
    _compile([*options, f"-I{folder}", f"-I{STUB}", *sources, "-o", str(output)])
    return output


def check_program(folder, program):
    """Have the compiler read a bundle's program and its model, with every warning an error, and write nothing."""
    sources = [str(folder / program), str(folder / "model_data.cc")]
    _compile([STATIC_MEMORY, f"-I{folder}", f"-I{STUB}", "-fsyntax-only", *sources])


def _compile(arguments):
    done = subprocess.run(["g++", "-std=c++17", *_WARNINGS, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_program(program, tmp_path, compiled_from=""):
    """Run a program; `compiled_from` is the file that the NPU's was compiled from."""
    return subprocess.run([str(program)], capture_output=True, text=True, env=environment(tmp_path, compiled_from))


def follow_readme(bundle, tmp_path):
    """Do what a bundle's README says under "Build", with nothing but a copy of the bundle; the output of it all."""
    folder, library = tmp_path / "of a firmware developer", tmp_path / "library.a"
    shutil.copytree(bundle, folder)
    subprocess.run(["ar", "rcs", str(library), str(compile_library(folder))], check=True)
    build = (folder / "README.md").read_text(encoding="utf-8").partition("\n## Build\n")[2]
    commands = re.findall(r"^    (.+)$", build, re.MULTILINE)
    assert any(command.startswith("cmake") for command in commands)
    text = "\n".join(commands)
    text = re.sub(r"<tflite-micro>/\S+\.a|<[\w-]+\.a>", str(library), text).replace("<tflite-micro>", str(STUB))
    assert "<" not in text, "every place to fill in is explained"
    done = subprocess.run(
        ["bash", "-e", "-c", text.replace("ctest", "ctest -V")],
        cwd=folder,
        env=environment(tmp_path) | {"CXXFLAGS": " ".join(_WARNINGS)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder / "build"


def environment(tmp_path, compiled_from=""):
    script = tmp_path / "runner.py"
    script.write_text(_SCRIPT.format(folder=str(tmp_path), compiled_from=str(compiled_from)))
    return os.environ | {"TFLM_FOLDER": str(tmp_path), "TFLM_RUNNER": f'"{sys.executable}" "{script}"'}


def namespace(folder):
    return re.search(r"namespace (\w+) \{", (folder / "model_data.h").read_text())[1]
