"""The phone's bundle: its Kotlin is compiled and run on the JVM, against stubs that answer as LiteRT did in Python.

The compiler is npm's (`npm install --prefix build kotlin-compiler`) or a `kotlinc` on the PATH.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from bundle.golden_files import golden, succeed
from nets.exported_nets import image_net

from edgeprune.bundle import application, phone
from edgeprune.bundle.bundle import export_bundle
from edgeprune.bundle.content import Preprocessing, identifier
from edgeprune.tflite.metadata import read_metadata

STUBS = Path(__file__).parent / "android_stubs"
NASTY = 'Größe "A" of $2 */ \\ 日本'
LABELS = ['a "quoted"', "$dollar ${x}", "back\\slash", "日本 🐈", "*/ comment"]
MANY = 1200


def mixed_net():
    """Numbers and words in, two outputs, neither a list of classes; its names are words of Kotlin or collide."""
    layers = keras.layers
    sensor = keras.Input((7, 2), name="fun")
    words = keras.Input((5,), dtype="int32", name="val")
    x = layers.Flatten()(layers.Conv1D(4, 3)(sensor))
    y = layers.Flatten()(layers.Embedding(10, 3)(words))
    joined = layers.Concatenate()([x, y])
    outputs = {"object": layers.Dense(3)(joined), "Object": layers.Dense(1)(joined)}
    return keras.Model([sensor, words], outputs, name="mixed")


def regressor():
    layers = keras.layers
    wave = keras.Input((16, 1), name="wave_form")
    return keras.Model(wave, layers.Conv1D(2, 3, padding="same", name="smooth")(wave), name="List")


def recurrent():
    import tf_keras

    steps = tf_keras.Input((6, 3), name="steps")
    x = tf_keras.layers.LSTM(4)(steps)
    return tf_keras.Model(steps, tf_keras.layers.Dense(2, name="gain")(x), name="recurrent")


def normal(*shape):
    return np.random.default_rng(1).normal(size=(24, *shape)).astype(np.float32)


def words():
    return np.random.default_rng(2).integers(0, 10, (24, 5)).astype(np.int32)


PIXELS = Preprocessing((120.0, 110.5, 100.0), (60.0, 57.5, 58.25))
# Name to the arguments of export_bundle.
BUNDLES = {
    "pixels": lambda: (image_net(), normal(12, 12, 3), {"labels": LABELS, "preprocessing": PIXELS, "name": NASTY}),
    "mixed": lambda: (mixed_net(), {"fun": normal(7, 2), "val": words()}, {"quantization": None}),
    "int16": lambda: (regressor(), normal(16, 1), {"quantization": "int16x8"}),
    "recurrent": lambda: (recurrent(), normal(6, 3), {}),  # in int8, where it keeps a state
    "dynamic": lambda: (image_net(), normal(12, 12, 3), {"quantization": "dynamic", "name": "dynamic"}),
    "uint8": lambda: (image_net(), normal(12, 12, 3), {"integer_io": "uint8", "name": "camera"}),
    "gpu": lambda: (
        image_net(MANY),
        normal(12, 12, 3),
        {
            "target": "phone-gpu",
            "labels": [f"class {number}" for number in range(MANY)],
            "preprocessing": Preprocessing.from_scale(1 / 255),
            "name": "many",
        },
    ),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    written = {}
    for name, make in BUNDLES.items():
        model, samples, arguments = make()
        written[name] = export_bundle(model, folder / name, representative_data=samples, **arguments)
    return written


def run_litert(bundle):
    """Run the file on the golden inputs with nothing of edgeprune's: the bytes in, the bytes out, the real outputs."""
    from ai_edge_litert.interpreter import Interpreter

    card = json.loads((bundle.directory / "model_card.json").read_text(encoding="utf-8"))
    interpreter = Interpreter(str(bundle.directory / "model.tflite"))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
    details = {detail["index"]: name for name, detail in runner.get_input_details().items()}
    names = {detail["index"]: name for name, detail in runner.get_output_details().items()}
    del runner  # while it is there, the interpreter does not run
    inputs, _, layout = golden(bundle)
    record, real = b"", {name: [] for name in names.values()}
    for sample in range(layout["samples"]):
        interpreter.reset_all_variables()
        for detail in interpreter.get_input_details():
            value = inputs[details[detail["index"]]][sample][None]
            if card["preprocessing"] and value.dtype == np.float32:
                mean, std = card["preprocessing"]["mean"], card["preprocessing"]["std"]
                value = ((value.astype(np.float64) - mean) / std).astype(np.float32)
            scale, zero_point = detail["quantization"]
            if scale:
                limits = np.iinfo(detail["dtype"])
                value = np.clip(np.round(value / np.float32(scale)) + zero_point, limits.min, limits.max)
            value = value.astype(detail["dtype"])
            record += value.tobytes()
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            value = interpreter.get_tensor(detail["index"])
            record += value.tobytes()
            scale, zero_point = detail["quantization"]
            real[names[detail["index"]]].append((value.astype(np.float64) - zero_point) * scale if scale else value)
    sizes = [interpreter.get_tensor(detail["index"]).nbytes for detail in interpreter.get_output_details()]
    return record, real, sizes


@pytest.mark.parametrize("name", BUNDLES)
def test_golden_outputs_are_what_litert_gives_for_the_golden_inputs(bundles, name):
    _, outputs, layout = golden(bundles[name])
    _, real, _ = run_litert(bundles[name])
    assert set(outputs) == set(real)
    for output in outputs:
        np.testing.assert_allclose(
            np.stack(outputs[output]), np.stack(real[output]).reshape(np.shape(outputs[output])), rtol=1e-6, atol=1e-9
        )
    assert all(entry["tolerance"] > 0 for entry in layout["outputs"])


def test_golden_inputs_are_raw(bundles):
    """The golden inputs of a model with preprocessing are what it was given before normalising."""
    inputs, _, _ = golden(bundles["pixels"])
    normalised = (np.stack(inputs["image"]) - PIXELS.mean) / PIXELS.std
    samples = normal(12, 12, 3)
    for sample in normalised:
        assert np.abs(samples - sample).max(axis=(1, 2, 3)).min() < 1e-5


def kotlin_jars():
    """The compiler's jars, or a skipped test."""
    if not (shutil.which("java") and shutil.which("javac")):
        pytest.skip("needs a JDK to compile and run Kotlin")
    roots = [
        Path(os.environ.get("KOTLIN_COMPILER", "")),
        Path(__file__).parents[2] / "build/node_modules/kotlin-compiler",
    ]
    if kotlinc := shutil.which("kotlinc"):
        roots.append(Path(kotlinc).resolve().parents[1])
    for root in roots:
        if (root / "lib/kotlin-compiler.jar").is_file():
            return root / "lib"
    pytest.skip("needs a Kotlin compiler: npm install --prefix build kotlin-compiler")


@pytest.fixture(scope="module")
def app(bundles, tmp_path_factory):
    """An app into which every bundle was put as its README says, compiled: its folder and the class path."""
    jars = kotlin_jars()
    folder = tmp_path_factory.mktemp("app")
    for bundle in bundles.values():
        readme = (bundle.directory / "README.md").read_text(encoding="utf-8")
        script = re.search(r"```sh\n(APP=.*?)```", readme, re.DOTALL)[1].replace(
            "path/to/MyApplication/app", str(folder)
        )
        succeed(["sh", "-e", "-c", script], cwd=bundle.directory)
    classes = folder / "classes"
    succeed(["javac", "-d", classes, *STUBS.rglob("*.java")])
    library = jars / "kotlin-stdlib.jar"
    sources = [*STUBS.rglob("*.kt"), *(folder / "src").rglob("*.kt")]
    compiler = ["java", "-cp", f"{jars}/*", "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"]
    flags = ["-no-stdlib", "-no-reflect", "-Werror", "-cp", f"{library}:{classes}", "-d", classes]
    succeed([*compiler, *flags, *sources])
    return folder, f"{classes}:{library}"


def class_of(bundle):
    (path,) = (bundle.directory / "android/src/main").rglob("*.kt")
    return path.stem


def run_junit(bundle, app, tmp_path, change=lambda record: record):
    folder, class_path = app
    record, _, sizes = run_litert(bundle)
    (tmp_path / "replay.bin").write_bytes(change(record))
    properties = {
        "replay": tmp_path / "replay.bin",
        "outputBytes": ",".join(map(str, sizes)),
        "appAssets": folder / "src/main/assets",
        "testAssets": folder / "src/androidTest/assets",
    }
    flags = [f"-D{key}={value}" for key, value in properties.items()]
    test = f"{phone.PACKAGE}.{class_of(bundle)}Test"
    command = ["java", "-cp", class_path, *flags, "stub.RunTests", test]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


@pytest.mark.parametrize("name", BUNDLES)
def test_kotlin_gives_the_model_the_same_bytes_and_reads_its_outputs_right(bundles, app, tmp_path, name):
    """The stub answers only for the bytes that NumPy made of the raw inputs, so every rounding must agree."""
    done = run_junit(bundles[name], app, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    count = golden(bundles[name])[2]["samples"]
    assert done.stdout.strip() == f"tests 1, runs {count}, resets {count if name == 'recurrent' else 0}"


def test_junit_test_fails_where_the_phone_computes_something_else(bundles, app, tmp_path):
    """A test that cannot fail proves nothing: the last output's bytes are changed."""

    def flipped(record):
        return record[:-1] + bytes([record[-1] ^ 0x40])

    done = run_junit(bundles["pixels"], app, tmp_path, flipped)
    assert done.returncode != 0
    assert "sample 7, scores[4]: expected" in done.stderr


def test_kotlin_helpers(bundles, app, tmp_path):
    """Labels come through unchanged, the best come first, pixels are taken apart, and a wrong size is named."""
    folder, class_path = app
    pixels = class_of(bundles["pixels"])
    many = class_of(bundles["gpu"])
    source = tmp_path / "Try.java"
    source.write_text(
        f"""
        import edgeprune.models.*;
        public class Try {{
          public static void main(String[] a) throws Exception {{
            var out = new java.io.PrintStream(System.out, true, "UTF-8");
            {pixels}.Companion.getLABELS().forEach(out::println);
            out.println({pixels}.Companion.top(new float[] {{1, 5, 3, 2, 4}}, 2));
            int[] image = new int[144];
            image[1] = 0xFF010203;
            float[] values = {pixels}.Companion.fromArgb(image);
            out.println(values[3] + " " + values[4] + " " + values[5] + " " + values.length);
            out.println({many}.Companion.getLABELS().size() + {many}.Companion.getLABELS().get(1199));
            var context = new android.content.Context(new java.io.File("{folder}/src/main/assets"));
            try {{
              {pixels}.Companion.fromAssets(context, 1).run(new float[3]);
            }} catch (IllegalArgumentException error) {{
              out.println(error.getMessage());
            }}
            try {{
              {pixels}.Companion.fromArgb(new int[3]);
            }} catch (IllegalArgumentException error) {{
              out.println(error.getMessage());
            }}
          }}
        }}
        """,
        encoding="utf-8",
    )
    succeed(["javac", "-encoding", "UTF-8", "-cp", class_path, "-d", tmp_path, source])
    done = subprocess.run(["java", "-cp", f"{tmp_path}:{class_path}", "Try"], capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == [
        *LABELS,
        f"[({LABELS[1]}, 5.0), ({LABELS[4]}, 4.0)]",
        "1.0 2.0 3.0 432",
        f"{MANY}class {MANY - 1}",
        "image expects 12 x 12 x 3 values, which is 432; got 3",
        "an image has 12 x 12 pixels, got 3",
    ]


def test_the_file_carries_its_metadata(bundles):
    metadata = read_metadata(bundles["pixels"].directory / "model.tflite")
    assert metadata.name == NASTY
    assert metadata.outputs[0].labels == tuple(LABELS)
    assert metadata.inputs[0].image == "rgb"
    np.testing.assert_allclose(metadata.inputs[0].mean, PIXELS.mean)
    np.testing.assert_allclose(metadata.inputs[0].std, PIXELS.std)
    mixed = read_metadata(bundles["mixed"].directory / "model.tflite")
    assert [entry.name for entry in mixed.inputs] == ["fun", "val"]
    assert [entry.mean for entry in mixed.inputs] == [(), ()]
    assert {entry.labels for entry in mixed.outputs} == {None}


def test_labels_are_lines(bundles):
    assert (bundles["pixels"].directory / "labels.txt").read_text(encoding="utf-8").splitlines() == LABELS
    assert not (bundles["mixed"].directory / "labels.txt").exists()


def test_the_card_tells_what_was_measured_on_the_file(bundles):
    bundle = bundles["pixels"]
    card = json.loads((bundle.directory / "model_card.json").read_text(encoding="utf-8"))
    content = (bundle.directory / "model.tflite").read_bytes()
    figures = card["figures"]
    assert figures["size"]["bytes"] == card["bytes"] == len(content)
    assert figures["size"]["gzip_bytes"] < len(content)
    assert figures["latency"]["milliseconds"] > 0
    assert "LiteRT" in figures["latency"]["machine"]
    assert figures["pruning"]["channels"] == ["stem 8", "scores 5"]
    text = (bundle.directory / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{len(content):,}" in text
    assert figures["latency"]["machine"].split(",")[0] in text.replace("\\", "")


def test_sizes_are_told_with_what_is_installed(tmp_path, monkeypatch):
    (tmp_path / "m.tflite").write_bytes(bytes(1000))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert set(application._size(tmp_path / "m.tflite").to_dict()) == {"bytes", "gzip_bytes"}
    monkeypatch.undo()
    pytest.importorskip("zstandard", reason="zstandard is not installed")
    assert application._size(tmp_path / "m.tflite").zstd_bytes < 100


def test_zeros_are_counted_in_the_file(tmp_path):
    model = image_net()
    kernel = model.layers[-1].kernel
    kernel.assign(np.where(np.arange(40).reshape(8, 5) < 20, 0.0, 0.5))
    bundle = export_bundle(model, tmp_path / "b", quantization=None, representative_data=normal(12, 12, 3))
    elements = 3 * 3 * 3 * 8 + 40
    assert bundle.figures["pruning"]["zeros_in_the_file"] == pytest.approx(20 / elements)


@pytest.mark.parametrize("name", BUNDLES)
def test_python_caller_proves_itself(bundles, name, tmp_path):
    """In a process of its own, without edgeprune: right on the golden vectors, and not on changed ones."""
    folder = shutil.copytree(bundles[name].directory, tmp_path / "moved here")
    command = [sys.executable, "-P", folder / "python/call_model.py"]
    succeed(command, cwd=tmp_path)
    content = (folder / "golden/golden.bin").read_bytes()
    for last in (np.float32(1e6), np.float32(np.nan)):
        (folder / "golden/golden.bin").write_bytes(content[:-4] + last.tobytes())
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 1
        assert "ABOVE" in done.stdout


@pytest.mark.parametrize("names", [("zip", "np"), ("self", "class")])
def test_python_caller_takes_inputs_of_any_name(tmp_path, names):
    inputs = [keras.Input((4,), name=name) for name in names]
    model = keras.Model(inputs, keras.layers.Dense(2, name="d")(keras.layers.Add()(inputs)), name="pair")
    bundle = export_bundle(model, tmp_path / "b", quantization=None)
    succeed([sys.executable, "-P", bundle.directory / "python/call_model.py"], cwd=tmp_path)


def test_the_class_is_not_called_like_the_runtime_s():
    assert application._class_name(identifier("compiled model")) == "CompiledModelModel"
    assert application._class_name(identifier("Interpreter")) == "InterpreterModel"
    assert application._class_name(identifier("my model")) == "MyModel"


def test_gradle_names_the_runtime_once_for_the_cpu_and_the_gpu(bundles):
    def gradle(name):
        return (bundles[name].directory / "android/dependencies.gradle.kts").read_text(encoding="utf-8")

    assert f'"com.google.ai.edge.litert:litert:{phone.LITERT}"' in gradle("pixels")
    assert "litert-gpu" not in gradle("pixels")
    assert f'"com.google.ai.edge.litert:litert-gpu:{phone.LITERT}"' in gradle("gpu")


def test_identifiers_are_kotlin_and_differ():
    class Port:
        def __init__(self, name):
            self.name = name

    names = ["fun", "wave form", "waveForm", "日本", "größe", "2nd", "日", "X_1:0"]
    assert application._identifiers([Port(name) for name in names], "input") == [
        "inputFun", "waveForm", "waveForm2", "input", "groe", "input2nd", "input2", "x10",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["plain", 'a"b', "$x ${y}", "back\\slash", "line\nbreak\t", "日本 🐈", "\u2028\x00"])
def test_kotlin_strings_hold_any_text(text):
    """Kotlin's escapes that are written are those of JSON, but for the dollar."""
    literal = phone._kotlin_string(text)
    assert not re.search(r"(?<!\\)\$", literal)
    assert json.loads(literal.replace("\\$", "$")) == text


def test_a_type_without_a_kotlin_array_is_named(tmp_path):
    half = keras.Input((4,), name="half")
    model = keras.Model(half, keras.ops.cast(keras.layers.Dense(2, name="d")(half), "float64"), name="doubles")
    with pytest.raises(ValueError, match="values of type float64, for which no code is written"):
        export_bundle(model, tmp_path / "b", quantization=None, representative_data=normal(4))
    assert not (tmp_path / "b").exists()


def test_two_labels_of_one_sigmoid_are_no_axis(tmp_path):
    """A single value has no place for two labels along its axis: they stand in labels.txt and the class alone."""
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(1, activation="sigmoid", name="p")(x), name="binary")
    bundle = export_bundle(
        model, tmp_path / "b", quantization=None, representative_data=normal(4), labels=["no", "yes"]
    )
    assert read_metadata(bundle.directory / "model.tflite").outputs[0].labels is None
    (source,) = (bundle.directory / "android/src/main").rglob("*.kt")
    assert '"yes",' in source.read_text(encoding="utf-8")
    assert "fun top" not in source.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BUNDLES)
def test_the_class_resets_a_file_that_keeps_a_state(bundles, name):
    (source,) = (bundles[name].directory / "android/src/main").rglob("*.kt")
    assert ("resetVariableTensors()" in source.read_text(encoding="utf-8")) == (name == "recurrent")
