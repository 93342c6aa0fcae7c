"""What people install: wheel and sdist hold every file of the package, and work where there is no repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; import sys; print(build_meta.build_sdist(sys.argv[1]))"
BUILD_WHEEL = BUILD.replace("sdist", "wheel")
# Run by an interpreter that has the dependencies and the installed package, in an empty folder.
SCRIPT = """
import pathlib, sys
import numpy as np
import keras
import edgeprune as ep

assert pathlib.Path(ep.__file__).is_relative_to(sys.prefix), ep.__file__
(x, y), _ = ep.load_fashion_mnist()
x = x[:64, ..., None].astype(np.float32) / 255
layers = keras.layers
model = keras.Sequential([keras.Input((28, 28, 1)), layers.Conv2D(4, 3, 4), layers.Flatten(), layers.Dense(10)])
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.5))
model.fit(x, y[:64], verbose=0, callbacks=[ep.UpdatePruningStep()])
smaller = ep.prune_channels(ep.strip_pruning(model), pruning_ratio=0.5)
bundle = ep.export_bundle(smaller, "bundle", "phone", representative_data=x)
assert bundle.verification.passed and (pathlib.Path(ep.__file__).parent / "py.typed").exists()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """An sdist of this tree and a wheel of the unpacked sdist, built by setuptools in processes of their own."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "edgeprune", tree / "edgeprune", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=tree, check=True, capture_output=True)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out, filter="data")
    unpacked = out / sdist.name.removesuffix(".tar.gz")
    subprocess.run([sys.executable, "-c", BUILD_WHEEL, str(out)], cwd=unpacked, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return wheel, sdist


def test_the_wheel_holds_every_file_of_the_package(built):
    """Templates, data and py.typed as well as modules, and nothing beside them."""
    wheel, _ = built
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edgeprune").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {name for name in files if "__pycache__" not in name}
    assert "edgeprune/py.typed" in held and any(name.endswith("Model.kt") for name in held)


def test_extras_are_of_packages_that_something_uses():
    """An extra whose packages no module, test or page mentions would promise what is not there."""
    import configparser

    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    uses = {
        "mcu": "tflite_micro",
        "npu": "ethosu",
        "ray": "import ray",
        "report": "plotly",
        "search": "import optuna",
        "tensorboard": "tensorboard",
        "zstd": "zstandard",
    }
    source = "\n".join(path.read_text() for path in (ROOT / "edgeprune").rglob("*.py"))
    assert set(config["options.extras_require"]) == {*uses, "notebook", "docs", "test"}
    assert [extra for extra, module in uses.items() if module not in source] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_it_works_where_it_is_installed(kind, built, tmp_path):
    """In a new environment, which finds the dependencies of this one and not this repository."""
    archive = dict(zip(("wheel", "sdist"), built, strict=True))[kind]
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    # A path in a .pth file: .pth files in that folder itself, as of an editable edgeprune, are not read.
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--no-build-isolation", "--ignore-installed", str(archive)], env=environment, check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    for command in ([python, "-c", SCRIPT], [python.parent / "edgeprune", "targets"]):
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "ethos-u55-128" in done.stdout
