"""The frame of every bundle: checked before the slow part, whole or nothing, names of any kind."""

import dataclasses
import errno
import hashlib
import importlib.util
import json
import os
import sys
import types

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeprune.bundle import bundle as frame
from edgeprune.bundle import exported_file
from edgeprune.bundle.bundle import export_bundle
from edgeprune.bundle.content import Preprocessing, distinct, identifier, raw_samples_note
from edgeprune.bundle.rendering import _environment, c_comment, c_string, markdown
from edgeprune.targets import target


@pytest.fixture
def net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6,), name="x"), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3, name="out")]
    )


@pytest.fixture
def samples():
    return np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)


class _Writer:
    """Stands in for the writer of a kind."""

    content = None

    def check_installed(self):
        pass

    def write(self, content):
        self.content = content
        (content.folder / "README.md").write_text("hello")
        return {"answer": 42, "notes": ["a note"]}


@pytest.fixture
def writer(monkeypatch):
    made = _Writer()
    monkeypatch.setitem(sys.modules, "edgeprune.export.stand_in", made)
    monkeypatch.setitem(frame._WRITERS, "phone", "edgeprune.export.stand_in")
    return made


def test_notes_of_the_data_reach_the_bundle(tmp_path, net, rng, writer):
    raw = rng.integers(0, 256, (20, 6)).astype(np.float32)
    made = export_bundle(net, tmp_path / "b", "phone", raw, preprocessing=Preprocessing.from_scale(1 / 255))
    assert any("The samples of 'x' reach" in note for note in made.notes)
    assert any("The samples of 'x' reach" in note for note in writer.content.notes), "for the README"


def test_a_bundle_holds_what_was_measured(tmp_path, net, samples, writer):
    labels = np.argmax(net.predict(samples, verbose=0), axis=-1)
    batches = [(samples[:8], labels[:8]), (samples[8:], labels[8:])]
    made = export_bundle(
        net, tmp_path / "b", "phone", samples, labels=["a", "b", "c"], validation_data=batches, author="me"
    )
    assert made.files == ("MODEL_CARD.md", "README.md", "SHA256SUMS", "model.tflite", "model_card.json")
    card = json.loads((tmp_path / "b" / "model_card.json").read_text())
    assert card["figures"] == {"answer": 42} == made.figures
    assert card["quantization"] == "int8" and card["author"] == "me" and card["notes"][-1] == "a note"
    scores = {"higher_is_better": True, "file": made.verification.accuracy, "Keras": 1.0}
    assert card["scores"] == {"accuracy": scores}
    assert card["inputs"][0]["name"] == "x" and card["inputs"][0]["shape"] == [1, 6]
    assert len(writer.content.samples["x"]) == frame.GOLDEN_SAMPLES
    assert "answer: 42" in str(made) and "note: a note" in str(made)
    json.dumps(made.to_dict())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": "fridge"}, ValueError, "no target 'fridge'"),
        ({"target": "phone-gpu", "quantization": "int4"}, ValueError, "does not run quantization='int4'"),
        ({"representative_data": None}, ValueError, "needs representative_data"),
        ({"labels": ["a", "b"]}, ValueError, "Got 2 labels, but the model's output 'out' has 3 values"),
        ({"labels": "abc"}, TypeError, "list of strings"),
        ({"labels": 3}, TypeError, "list of strings"),
        ({"labels": iter(["a", "b"])}, ValueError, "Got 2 labels"),
        ({"name": 5}, TypeError, "name must be a string, got int"),
        ({"author": None}, TypeError, "author must be a string, got NoneType"),
        ({"labels": ["a", "b", "c\nd"]}, ValueError, "one line of text"),
        ({"labels": ["a", "b", " "]}, ValueError, "not empty"),
        ({"representative_data": np.full((4, 6), np.nan)}, ValueError, "NaN or infinity"),
        ({"representative_data": np.zeros((4, 7))}, ValueError, r"expects samples of shape \(6,\)"),
        ({"preprocessing": (0, 1)}, TypeError, "Preprocessing"),
        ({"preprocessing": Preprocessing((0, 0), (1, 1))}, ValueError, "Preprocessing has 2 channels"),
        (
            {"validation_data": np.zeros(3)},
            ValueError,
            r"input 'x' expects samples of shape \(6,\), got an array of shape \(3,\)",
        ),
        ({"validation_data": (np.zeros((3, 6)), [1])}, ValueError, r"different numbers of samples: \[1, 3\]"),
    ],
)
def test_what_is_wrong_is_told_before_the_slow_part(tmp_path, net, samples, monkeypatch, arguments, error, message):
    monkeypatch.setattr(exported_file, "write_tflite", lambda *a, **k: pytest.fail("the slow part began"))
    arguments = {"target": "phone", "representative_data": samples} | arguments
    with pytest.raises(error, match=message):
        export_bundle(net, tmp_path / "b", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("target", "missing", "message"),
    [
        ("phone", "jinja2", "pip install jinja2"),
        ("cortex-m", "jinja2", "pip install jinja2"),
        ("cortex-m", "tflite_micro", r"pip install 'edgeprune\[mcu\]'"),
        ("ethos-u55-128", "jinja2", "pip install jinja2"),
        ("ethos-u55-128", "ethosu", r"pip install 'edgeprune\[npu\]'"),
    ],
)
def test_what_is_not_installed_is_told_before_the_slow_part(
    tmp_path, net, samples, monkeypatch, target, missing, message
):
    find = importlib.util.find_spec
    there = types.ModuleType("there")  # stands for what is installed, so that only one thing is missing
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: (
            None if name == missing else there if name in ("tflite_micro", "ethosu") else find(name, *rest)
        ),
    )
    monkeypatch.setattr(exported_file, "write_tflite", lambda *a, **k: pytest.fail("the slow part began"))
    with pytest.raises(ImportError, match=message) as error:
        export_bundle(net, tmp_path / "b", target, samples)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_told(tmp_path):
    with pytest.raises(TypeError, match="Expected a Keras model, got str"):
        export_bundle("model", tmp_path / "b")
    with pytest.raises(ValueError, match="is not built"):
        export_bundle(keras.Sequential([keras.layers.Dense(1)]), tmp_path / "b")


def test_a_bundle_is_replaced_only_where_that_is_asked_for_and_other_files_stay(tmp_path, net, samples, writer):
    folder = tmp_path / "b"
    export_bundle(net, folder, "phone", samples, author="first")
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("a week of work")
    with pytest.raises(FileExistsError, match="exists and is not overwritten"):
        export_bundle(net, folder, "phone", samples)
    made = export_bundle(net, folder, "phone", samples, author="second", overwrite=True)
    assert json.loads((folder / "model_card.json").read_text())["author"] == "second"
    assert (folder / "notes" / "mine.txt").read_text() == "a week of work" and "notes/mine.txt" not in made.files
    (folder / "README.md").write_text("edited")
    (folder / "MODEL_CARD.md").unlink()
    with pytest.raises(FileExistsError, match=r"README.md changed since the bundle was written. Move what"):
        export_bundle(net, folder, "phone", samples, overwrite=True)
    assert (folder / "README.md").read_text() == "edited"
    assert os.listdir(tmp_path) == ["b"]


def test_the_manifest_is_what_sha256sum_checks(tmp_path, net, samples, writer):
    made = export_bundle(net, tmp_path / "b", "phone", samples)
    listed = dict(reversed(line.split("  ")) for line in (made.directory / "SHA256SUMS").read_text().splitlines()[1:])
    assert {*listed, "SHA256SUMS"} == set(made.files)
    for name, digest in listed.items():
        assert hashlib.sha256((made.directory / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("manifest", [None, b"", b"00  thesis.txt\n", b"\xff\xfe"])
def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path, net, samples, writer, manifest):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    (mine / "model_card.json").write_text("{}")
    if manifest is not None:
        (mine / "SHA256SUMS").write_bytes(manifest)
    with pytest.raises(FileExistsError, match="is no bundle that edgeprune wrote"):
        export_bundle(net, mine, "phone", samples, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "years of work"
    with pytest.raises(NotADirectoryError):
        export_bundle(net, mine / "thesis.txt", "phone", samples, overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"version": None}, TypeError, "version must be a string, got NoneType"),
        ({"validation_data": ([], np.arange(3))}, ValueError, "got 0"),
        ({"validation_data": ({}, np.arange(3))}, ValueError, "got none"),
        ({"validation_data": (np.zeros((0, 6)), [])}, ValueError, "no samples"),
        ({"validation_data": (np.zeros(()), np.arange(3))}, ValueError, r"shape \(6,\), got an array of shape \(\)"),
        ({"validation_data": (np.zeros((3, 6)), 1)}, ValueError, "a row for each sample"),
    ],
)
def test_wrong_arguments_raise_what_the_docstring_names(tmp_path, net, samples, writer, arguments, error, message):
    with pytest.raises(error, match=message):
        export_bundle(net, tmp_path / "b", "phone", samples, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, net, samples, writer, monkeypatch):
    def full(content):
        (content.folder / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "write", full)
    with pytest.raises(OSError, match="No space left"):
        export_bundle(net, tmp_path / "b", "phone", samples)
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused(tmp_path, net, samples, writer, monkeypatch):
    from edgeprune.export import convert

    write_saved_model, kernel = convert.write_saved_model, net.weights[2]

    def write_other_weights(*arguments, **options):
        right = np.array(kernel)
        kernel.assign(-right)
        try:
            return write_saved_model(*arguments, **options)
        finally:
            kernel.assign(right)

    monkeypatch.setattr(convert, "write_saved_model", write_other_weights)
    message = (
        "does not compute what the Keras model does.* or use quantization='dynamic' or 'float16' or None or 'int16x8'"
    )
    with pytest.raises(ValueError, match=message):
        export_bundle(net, tmp_path / "b", "phone", samples)
    board = dataclasses.replace(target("phone"), name="only int8", quantizations=("int8",))
    with pytest.raises(ValueError, match=r"Pass more representative data\.$"):
        export_bundle(net, tmp_path / "b", board, samples)
    assert not list(tmp_path.iterdir())


def test_options_that_a_bundle_does_not_have_are_not_advised(tmp_path, writer):
    square = keras.Input((3, 3), name="x")
    net = keras.Model(square, keras.layers.Lambda(keras.ops.inv, name="invert")(square))
    samples = np.eye(3, dtype=np.float32)[None] + np.zeros((4, 1, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"MatrixInverse in layer 'invert' \(Lambda\)\. Replace them by built-in ones\.$"
    ):
        export_bundle(net, tmp_path / "b", "phone", samples)


def test_a_loop_s_advice_is_a_format_of_the_target(tmp_path, rng, writer, monkeypatch):
    monkeypatch.setitem(frame._WRITERS, "microcontroller", "edgeprune.export.stand_in")
    layers = keras.layers
    net = keras.Sequential([keras.Input((600, 2)), layers.GRU(3, name="gru"), layers.Dense(1)])
    samples = rng.normal(size=(4, 600, 2)).astype(np.float32)
    with pytest.raises(ValueError, match=r"a model with a loop: layer 'gru' .* or use quantization=None\.$"):
        export_bundle(net, tmp_path / "b", "cortex-m", samples)


def test_labels_may_come_one_by_one(tmp_path, net, samples, writer):
    export_bundle(net, tmp_path / "b", "phone", samples, labels=(letter for letter in "abc"))
    assert writer.content.labels == ["a", "b", "c"]


def test_a_model_that_computes_nothing_is_refused(tmp_path, samples, writer, monkeypatch):
    monkeypatch.setitem(frame._WRITERS, "microcontroller", "edgeprune.export.stand_in")
    x = keras.Input((6,), name="x")
    same = keras.Model(x, keras.layers.Dropout(0.1)(x), name="same")
    with pytest.raises(ValueError, match="'same' returns its inputs unchanged: no operator is left to run on 'cortex"):
        export_bundle(same, tmp_path / "b", "cortex-m", samples)
    assert not list(tmp_path.iterdir())


def test_sparse_files_are_for_phones(tmp_path, net, samples, writer):
    with pytest.raises(ValueError, match="'cortex-m' reads no sparse files"):
        export_bundle(net, tmp_path / "b", "cortex-m", samples, sparse=True)
    kernel = net.layers[0].kernel
    kernel.assign(kernel.numpy() * 0)
    net.layers[1].kernel.assign(net.layers[1].kernel.numpy() * [[1, 0, 0]])
    bundle = export_bundle(net, tmp_path / "b", "phone", sparse=True, quantization=None)
    assert any("parse encoding" in note or "sparse " in note for note in bundle.notes)


@pytest.mark.parametrize(
    ("largest", "preprocessing", "raw"),
    [
        (255, Preprocessing.from_scale(1 / 255), True),
        (255, Preprocessing((127.5,), (127.5,)), True),
        (255, Preprocessing((123.0, 117.0, 104.0), (58.0, 57.0, 57.0)), True),
        (255, Preprocessing(), False),
        (255, None, False),
        (1, Preprocessing.from_scale(1 / 255), False),
        (9, Preprocessing.from_scale(1 / 255), False),
    ],
)
def test_samples_that_look_like_raw_values_are_noted(rng, largest, preprocessing, raw):
    image = rng.integers(0, largest + 1, (4, 5, 5, 3)).astype(np.float32)
    notes = raw_samples_note({"image": image, "words": np.full((4, 3), 200)}, preprocessing)
    assert len(notes) == raw and all("The samples of 'image' reach 255" in note for note in notes)
    assert not raw_samples_note({"image": image + 0.25}, preprocessing)


def test_a_template_prints_text_and_numbers_alone():
    """In Jinja `figures.values` is the method of a dict, whatever its keys are."""
    figures = {"values": 3}
    print_it = _environment().from_string
    assert print_it("{{ figures['values'] }}, {{ np }}").render(figures=figures, np=np.float32(0.5)) == "3, 0.5"
    for value in ("figures.values", "figures", "none"):
        with pytest.raises(TypeError, match="neither text nor a number"):
            print_it(f"{{{{ {value} }}}}").render(figures=figures)


@given(st.text())
def test_any_name_gives_an_identifier(name):
    made = identifier(name)
    assert made.isidentifier() and made.isascii() and made == made.lower() and "__" not in made
    assert not made.startswith("_") and "model" in made


def test_identifiers():
    assert identifier('Größe "A" 2') == "grosse_a_2_model"
    assert identifier("class") == "class_model" and identifier("2x") == "model_2x" and identifier("日本") == "model"
    assert identifier("My Model") == "my_model"


@given(st.lists(st.sampled_from(["x", "x2", "x_2", "x_2_2", "y"])), st.sampled_from(["", "_"]))
def test_distinct_names_differ_and_keep_their_beginning(names, separator):
    made = distinct(names, separator)
    assert len(set(made)) == len(names)
    assert all(new.startswith(old) for new, old in zip(made, names, strict=True))


@given(st.text())
@example("*\\")
@example("*/*/")
@example("???/")
def test_no_text_leaves_a_string_or_a_comment_of_c(text):
    literal = c_string(text)
    inside = literal[1:-1]
    assert literal.isascii() and literal[0] == literal[-1] == '"' and "\n" not in literal and "?" not in inside
    decoded = inside.encode().decode("unicode_escape").encode("latin-1").decode("utf-8", errors="replace")
    assert decoded == text.encode("utf-8", errors="replace").decode()
    comment = c_comment(text)
    assert (
        not any(mark in comment for mark in ("*/", "/*", "??"))
        and len(comment.splitlines()) <= 1
        and not comment.endswith("\\")
    )
    assert "\n" not in markdown(text)


@given(st.floats(0.01, 100), st.floats(-100, 100))
def test_preprocessing_from_a_scale_is_the_same(scale, offset):
    raw = np.linspace(-3, 3, 7)[:, None]
    made = Preprocessing.from_scale(scale, offset)
    np.testing.assert_allclose(made.apply(raw), raw * scale + offset, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made.undo(made.apply(raw)), raw, rtol=1e-2, atol=1e-2 * (1 + abs(offset) / scale))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((0,), (0,), "must be positive"),
        ((0,), (1e-300,), "must be positive in float32"),
        ((0,), (1e300,), "std must be finite numbers in float32"),
        ((0, 1), (1,), "as many"),
        ((np.nan,), (1,), "finite"),
        ((-1e300,), (1,), "mean must be finite numbers in float32"),
    ],
)
def test_preprocessing_that_makes_no_sense(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(mean, std)


def test_the_commands(tmp_path, net, samples, capsys):
    from typer.testing import CliRunner

    from edgeprune.cli import app

    runner = CliRunner()
    listed = runner.invoke(app, ["targets", "--json"])
    assert json.loads(listed.stdout)["ethos-u55-128"]["kind"] == target("ethos-u55-128").kind
    assert "cortex-m" in runner.invoke(app, ["targets"]).stdout
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")
    net.save(tmp_path / "m.keras")
    np.savez(tmp_path / "d.npz", x=samples, y=np.zeros(len(samples), int))
    (tmp_path / "l.txt").write_text("ä\nb\nc\n", encoding="utf-8-sig")
    options = ["--target", "cortex-m", "-o", str(tmp_path / "b"), "--data", str(tmp_path / "d.npz")]
    command = ["bundle", str(tmp_path / "m.keras"), *options, "--labels", str(tmp_path / "l.txt"), "--mean", "1"]
    done = runner.invoke(app, [*command, "--std", "2", "--uint8-io", "--per-tensor-dense", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["figures"]["parity"]["mismatches"] == 0
    config, readme = ((tmp_path / "b" / name).read_text() for name in ("model_config.h", "README.md"))
    assert "kPreprocessingMean" in config and "InputType_x = uint8_t" in config and "September 2024" not in readme
    done = runner.invoke(app, [*command, "--uint8-io", "--float-io"])
    assert "--float-io and --uint8-io exclude each other" in done.output
    assert json.loads((tmp_path / "b" / "model_card.json").read_text(encoding="utf-8"))["labels"] == ["ä", "b", "c"]
    assert isinstance(runner.invoke(app, command).exception, SystemExit)
