"""What may go wrong while a bundle is written: a full disk, a kill, files that attack their readers."""

import importlib
import resource
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from edgeprune import targets
from edgeprune.bundle import bundle as frame
from edgeprune.bundle.bundle import export_bundle
from edgeprune.bundle.manifest import write_manifest
from edgeprune.measure import vela
from edgeprune.measure.tflm import MicroRuntime
from edgeprune.staging import PREFIX

NEEDS = {"cortex-m": "tflite_micro", "ethos-u55-128": "ethosu"}
TARGETS = ["phone", "cortex-m", "ethos-u55-128"]


def _net(outputs=1):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Flatten()(keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(inputs))
    heads = [keras.layers.Dense(3 + number, name=f"head{number}")(x) for number in range(outputs)]
    return keras.Model(inputs, heads, name="tiny")


def _samples():
    return np.random.default_rng(0).normal(size=(10, 8, 8, 3)).astype(np.float32)


def _need(target):
    if target in NEEDS:
        pytest.importorskip(NEEDS[target], reason=f"{NEEDS[target]} is not installed")


@pytest.mark.parametrize("target", TARGETS)
def test_a_file_that_does_not_fit_on_the_disk_leaves_nothing(target, tmp_path, monkeypatch):
    _need(target)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "model_card.json").write_text("{}")
    write_manifest(tmp_path / "old")
    kind = targets.target(target).kind

    class Full:
        """The target's own writer, on a disk that takes no more than 3,000 bytes of a file."""

        def __init__(self, writer):
            self.check_installed, self._writer = writer.check_installed, writer

        def write(self, content):
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
            try:
                return self._writer.write(content)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setitem(sys.modules, "edgeprune.export.full", Full(importlib.import_module(frame._WRITERS[kind])))
    monkeypatch.setitem(frame._WRITERS, kind, "edgeprune.export.full")
    for folder in ("new", "old"):
        with pytest.raises(OSError, match="File too large"):
            export_bundle(_net(), tmp_path / folder, target, _samples(), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old" / "model_card.json").read_text() == "{}", "the old bundle is untouched"


@pytest.mark.slow
def test_a_kill_half_way_leaves_no_bundle(tmp_path):
    """Kills of the writer of folders itself are in `tests/test_atomic_folders.py`."""
    _need("cortex-m")
    script = textwrap.dedent(
        f"""
        import sys, time
        sys.path.insert(0, {str(tmp_path)!r})
        import keras, numpy as np
        from edgeprune.bundle import cpp_sources
        from edgeprune.bundle.bundle import export_bundle
        render, rendered = cpp_sources.render, []
        def slow(template, **values):
            rendered.append(template)
            if len(rendered) == 5:
                print("half way", flush=True)
                time.sleep(60)
            return render(template, **values)
        cpp_sources.render = slow
        net = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        export_bundle(net, {str(tmp_path / "b")!r}, "cortex-m", np.ones((4, 6), "float32"))
        """
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"half way\n"
        process.kill()
    left = [path.name for path in tmp_path.iterdir()]
    assert len(left) == 1 and left[0].startswith(PREFIX)
    made = export_bundle(_net(), tmp_path / "b", "cortex-m", _samples())
    assert [path.name for path in tmp_path.iterdir()] == ["b"], "what was left is gone"
    assert (made.directory / "test_main.cc").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_two_outputs_with_labels_for_one(target, tmp_path):
    _need(target)
    made = export_bundle(_net(outputs=2), tmp_path / "b", target, _samples(), labels=["a", "b", "c", "d"])
    assert [row.name for row in made.verification.outputs] == ["head0", "head1"]
    if target == "phone":
        assert (tmp_path / "b" / "labels.txt").read_text() == "a\nb\nc\nd\n"
        return
    config = (tmp_path / "b" / "model_config.h").read_text()
    assert "kOutputCount = 2;" in config and config.index('"head0"') < config.index('"head1"')
    example = (tmp_path / "b" / "example_main.cc").read_text()
    assert example.count("kLabels[best]") == 1, "four values have labels, three have none"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    from edgeprune.export.convert import export_tflite

    path = tmp_path_factory.mktemp("good") / "m.tflite"
    export_tflite(_net(), path, "int8", _samples(), verify=False, verbose=False)
    return path.read_bytes()


def _damaged(content, seed):
    """The content with some of its offsets, sizes and numbers replaced, most of them near where tables lie."""
    generator = np.random.default_rng(seed)
    damaged = bytearray(content)
    for place in generator.integers(0, len(content) // 4, 3) * 4:
        value = generator.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0, int(generator.integers(2**32))])
        damaged[place : place + 4] = int(value).to_bytes(4, "little")
    damaged[4:8] = b"TFL3"
    return bytes(damaged)


@pytest.mark.parametrize("seed", range(12))
def test_hostile_offsets_never_end_this_process(seed, good, tmp_path):
    _need("cortex-m")
    path = tmp_path / "m.tflite"
    path.write_bytes(_damaged(good, seed))
    try:
        outputs = MicroRuntime(path).run([np.zeros((1, 8, 8, 3), np.int8)])
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(output, np.ndarray) for output in outputs)


@pytest.mark.parametrize("seed", range(4))
def test_vela_on_hostile_offsets_gives_a_report_or_one_error(seed, good, tmp_path):
    _need("ethos-u55-128")
    path, output = tmp_path / "m.tflite", tmp_path / "out.tflite"
    path.write_bytes(_damaged(good, seed))
    try:
        report = vela.compile_for_npu(path, "ethos-u55-128", output)
    except ValueError as error:
        assert str(path) in str(error) and not output.exists()
    else:
        assert report.path == output and output.exists()
