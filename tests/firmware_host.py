"""Build and run the C++ of a bundle on this machine: headers that stand in for TensorFlow Lite Micro, and its results.

The interpreter behind the headers hands the model, the arena's size and the inputs to a script of Python, and gives out
what that computed. So all of a bundle's own code runs, on the values that the real interpreter gives.
"""

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

_SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from edgeprune.measure.integer_reference import integer_reference
from edgeprune.measure.micro import MicroRuntime
from edgeprune.measure.runtime import Runtime
folder, compiled_from = Path({folder!r}), {compiled_from!r}
path = Path(compiled_from or folder / "m.tflite")
if not compiled_from:
    path.write_bytes((folder / "model").read_bytes())
inputs = []
for number, port in enumerate(Runtime(path).inputs.values()):
    raw = (folder / f"input{{number}}").read_bytes()
    inputs.append(np.frombuffer(raw, port.dtype)[: int(np.prod(port.shape))].reshape(port.shape))
if compiled_from:  # no interpreter here has the NPU's operator
    with integer_reference(path) as reference:
        outputs = reference.run(inputs)
else:
    outputs = MicroRuntime(path, int(sys.argv[1])).run(inputs)
for number, output in enumerate(outputs):
    (folder / f"output{{number}}").write_bytes(output.tobytes())
"""


def compile_program(folder, program, output, *options):
    """Compile `example_main.cc` or `test_main.cc` of a bundle, with every warning an error."""
    command = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Wno-trigraphs", "-Werror", "-pedantic", *options]
    command += [f"-DSTUB_MODEL={namespace(folder)}", f"-I{folder}", f"-I{STUB}", str(folder / program)]
    done = subprocess.run([*command, str(folder / "model_data.cc"), "-o", str(output)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return output


def run_program(program, tmp_path, compiled_from=""):
    """Run a program; `compiled_from` is the file that the NPU's was compiled from."""
    return subprocess.run([str(program)], capture_output=True, text=True, env=environment(tmp_path, compiled_from))


def follow_readme(bundle, tmp_path):
    """Do what a bundle's README says under "Build", with nothing but a copy of the bundle; the output of it all."""
    folder, library = tmp_path / "of a firmware developer", tmp_path / "library.a"
    shutil.copytree(bundle, folder)
    subprocess.run(["ar", "rcs", str(library)], check=True)
    build = (folder / "README.md").read_text(encoding="utf-8").partition("\n## Build\n")[2]
    commands = re.findall(r"^    (.+)$", build, re.MULTILINE)
    assert any(command.startswith("cmake") for command in commands)
    text = "\n".join(commands)
    text = re.sub(r"<tflite-micro>/\S+\.a|<[\w-]+\.a>", str(library), text).replace("<tflite-micro>", str(STUB))
    assert "<" not in text, "every place to fill in is explained"
    flags = f"-Wall -Wextra -Wno-trigraphs -Werror -pedantic -DSTUB_MODEL={namespace(folder)}"
    done = subprocess.run(
        ["bash", "-e", "-c", text.replace("ctest", "ctest -V")],
        cwd=folder,
        env=environment(tmp_path) | {"CXXFLAGS": flags},
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
