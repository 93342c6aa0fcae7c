"""Microcontroller bundles: proven on the interpreter, compiled by the host, run on their golden vectors."""

import json
import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from bundle.firmware_host import (
    STATIC_MEMORY,
    STUB,
    check_program,
    compile_library,
    compile_program,
    follow_readme,
    needs_cmake,
    needs_compiler,
    run_program,
)
from nets.exported_nets import flat_net
from nets.samples import numbers

from edgeprune.bundle.bundle import export_bundle
from edgeprune.bundle.content import Preprocessing, identifier
from edgeprune.bundle.cpp_sources import _described, resolver_methods, with_margin
from edgeprune.measure import tflm
from edgeprune.targets import MICRO_OPERATORS
from edgeprune.tflite.runtime import Port, Runtime

pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")

ODD = 'Großes "Netz" */ ??/ 2\\'
LABELS = ['a "b"', "größe", "c\\n", "日本", "??="]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    keras.utils.set_random_seed(1)
    return export_bundle(
        flat_net(),
        tmp_path_factory.mktemp("mcu") / "a bundle",
        "cortex-m",
        numbers(12, 8, 8, 3),
        labels=LABELS,
        preprocessing=Preprocessing((1.0, 2.0, 3.0), (2.0, 2.0, 2.0)),
        name=ODD,
        description="ends a comment */ and ??/",
        version="1 */ 2",
    )


def test_the_files_and_the_figures(bundle):
    assert set(bundle.files) == {
        *("model.tflite", "model_data.h", "model_data.cc", "model_ops.h", "model_config.h", "golden_vectors.h"),
        *("example_main.cc", "test_main.cc", "CMakeLists.txt", "README.md", "model_card.json", "MODEL_CARD.md"),
        "SHA256SUMS",
    }
    card = json.loads((bundle.directory / "model_card.json").read_text(encoding="utf-8"))
    assert card["name"] == ODD and card["labels"] == LABELS
    assert card["figures"] == bundle.figures
    assert bundle.figures["parity"]["mismatches"] == 0
    assert bundle.figures["ram_layer"] == "stem"
    config = (bundle.directory / "model_config.h").read_text()
    assert f"kArenaBytes = {bundle.figures['arena']['with_margin']};" in config
    assert "estimate" in config.lower()


def test_the_array_is_the_file(bundle):
    text = (bundle.directory / "model_data.cc").read_text()
    values = re.search(r"= \{(.*)\};", text, re.DOTALL)[1]
    content = (bundle.directory / "model.tflite").read_bytes()
    assert bytes(int(value) for value in values.split(",") if value.strip()) == content


def test_buffers_are_aligned(bundle):
    from ai_edge_litert.schema_py_generated import Model

    content = (bundle.directory / "model.tflite").read_bytes()
    model = Model.GetRootAs(content)
    buffers = [model.Buffers(number) for number in range(model.BuffersLength())]
    # Field 0 of a buffer, found by its place in the table: 4 + 2 * 0.
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in buffers if not buffer.DataIsNone()]
    assert len(starts) > 4 and all(start % 16 == 0 for start in starts)


def test_the_arena_is_the_smallest_that_runs(bundle):
    path, arena = bundle.directory / "model.tflite", bundle.figures["arena"]
    zeros = [np.zeros((1, 8, 8, 3), np.int8)]
    tflm.MicroRuntime(path, arena["bytes"]).run(zeros)
    with pytest.raises(tflm.MicroError, match="does not fit into an arena"):
        tflm.MicroRuntime(path, arena["bytes"] - 16).run(zeros)
    assert arena["head"] + arena["tail"] <= arena["bytes"] < arena["with_margin"]
    assert arena["head"] >= 8 * 8 * 3 + 3 * 3 * 8
    assert with_margin(1000, 0) == 1200 and with_margin(1000, 5000) == 6000


def test_parity_over_300_samples(bundle):
    parity = tflm.compare_with_reference(bundle.directory / "model.tflite", {"image": numbers(300, 8, 8, 3, seed=3)})
    assert (parity.samples, parity.values, parity.mismatches, parity.largest) == (300, 1500, 0, 0)


def test_every_operator_has_a_method_that_the_resolver_has():
    text = (STUB / "tensorflow/lite/micro/micro_mutable_op_resolver.h").read_text()
    known = {f"Add{name}" for name in re.findall(r"^  OP\((\w+)\)", text, re.MULTILINE)}
    assert set(resolver_methods(sorted(MICRO_OPERATORS))) <= known


@needs_compiler
def test_the_code_compiles_and_the_golden_vectors_agree(bundle, tmp_path):
    done = run_program(compile_program(bundle.directory, "test_main.cc", tmp_path / "test"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 samples, 0 values differ" in done.stdout


@needs_compiler
@pytest.mark.parametrize(("options", "offset"), [([], 8), ([STATIC_MEMORY], 24)])
def test_the_tensors_of_the_stand_in_lie_as_in_the_real_header(tmp_path, options, offset):
    """The offsets are those that a compiler gives for TensorFlow Lite Micro's own common.h on 64 bits."""
    source = tmp_path / "layout.cc"
    source.write_text(
        f'#include "tensorflow/lite/core/c/common.h"\nstatic_assert(offsetof(TfLiteTensor, data) == {offset}, "");\n'
    )
    command = ["g++", "-std=c++17", *options, f"-I{STUB}", "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_code_without_the_librarys_definition_does_not_compile(bundle, tmp_path):
    with pytest.raises(AssertionError, match="Compile with -DTF_LITE_STATIC_MEMORY"):
        compile_program(bundle.directory, "test_main.cc", tmp_path / "test", options=())


@needs_compiler
@pytest.mark.parametrize("program", ["test_main.cc", "example_main.cc"])
@pytest.mark.parametrize(
    ("options", "static_library"),
    [(["-DTFLM_WITHOUT_STATIC_MEMORY"], True), (["-DARDUINO"], True), ([STATIC_MEMORY], False)],
)
def test_code_and_library_of_different_layouts_stop_before_any_value_is_read(
    bundle, tmp_path, program, options, static_library
):
    made = compile_program(
        bundle.directory, program, tmp_path / "program", options=options, static_library=static_library
    )
    done = run_program(made, tmp_path)
    assert done.returncode == 1 and "make TF_LITE_STATIC_MEMORY the same in both" in done.stdout


@needs_cmake
def test_cmake_builds_for_a_library_without_the_definition(bundle, tmp_path):
    library = compile_library(bundle.directory, static_memory=False)
    options = [f"-DTFLM_DIR={STUB}", f"-DTFLM_LIBRARY={library}", "-DTFLM_STATIC_MEMORY=OFF"]
    subprocess.run(["cmake", "-S", bundle.directory, "-B", tmp_path / "build", *options], check=True)
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True)
    (example,) = (tmp_path / "build").glob("*_example")
    assert run_program(example, tmp_path).returncode == 0


@needs_compiler
@pytest.mark.parametrize("quantization", ["int16x8", None])
def test_the_layout_is_checked_for_every_type(tmp_path, quantization):
    made = export_bundle(flat_net(), tmp_path / "b", "cortex-m", numbers(12, 8, 8, 3), quantization=quantization)
    options = ["-DTFLM_WITHOUT_STATIC_MEMORY"]
    for static_library, code in ((True, 1), (False, 0)):
        program = compile_program(
            made.directory, "example_main.cc", tmp_path / "it", options=options, static_library=static_library
        )
        assert run_program(program, tmp_path).returncode == code


def _sequences(rng, count=3):
    return rng.normal(size=(count, 6, 4)).astype(np.float32)


@needs_compiler
def test_a_recurrent_model_starts_every_golden_vector_afresh(tmp_path, rng):
    """The files of both Kerases are compared on this interpreter in `tests/export/test_recurrent.py`."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential([keras.Input((6, 4)), layers.LSTM(8), layers.Dense(2)], name="lstm")
    made = export_bundle(net, tmp_path / "b", "cortex-m", _sequences(rng))
    assert made.verification.operators["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 1
    done = run_program(compile_program(made.directory, "test_main.cc", tmp_path / "test"), tmp_path)
    assert done.returncode == 0 and "3 samples, 0 values differ" in done.stdout, done.stdout
    assert "interpreter.Reset()" in (made.directory / "README.md").read_text()
    assert "interpreter->Reset()" in (made.directory / "example_main.cc").read_text()

    forgetful = tmp_path / "without"
    shutil.copytree(made.directory, forgetful)
    program = forgetful / "test_main.cc"
    program.write_text(program.read_text().replace("interpreter->Reset()", "kTfLiteOk"))
    done = run_program(compile_program(forgetful, "test_main.cc", tmp_path / "test"), tmp_path)
    assert done.returncode == 1 and "0 values differ" not in done.stdout, "the stand-in keeps the state too"


@needs_compiler
@pytest.mark.parametrize("kind", ["gru", "words", "upsampled"])
def test_layers_that_are_converted_by_an_equal_computation_run_on_the_interpreter(tmp_path, rng, kind):
    """A GRU is unrolled; the Embedding and UpSampling2D of Keras 3 alone bring operators that are missing there."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    image = rng.random((3, 8, 8, 2)).astype(np.float32)
    stack, samples = {
        "gru": ([keras.Input((6, 4)), layers.GRU(8)], _sequences(rng)),
        "words": (
            [keras.Input((10,), dtype="int32"), layers.Embedding(50, 8), layers.GlobalAveragePooling1D()],
            rng.integers(0, 50, (3, 10)).astype(np.int32),
        ),
        "upsampled": (
            [keras.Input((8, 8, 2)), layers.Conv2D(4, 3), layers.UpSampling2D(), layers.GlobalAveragePooling2D()],
            image,
        ),
    }[kind]
    net = keras.Sequential([*stack, layers.Dense(2)], name=kind)
    made = export_bundle(net, tmp_path / "b", "cortex-m", samples)
    done = run_program(compile_program(made.directory, "test_main.cc", tmp_path / "test"), tmp_path)
    assert done.returncode == 0 and "3 samples, 0 values differ" in done.stdout, done.stdout
    kept = any("are the interpreter's own, for its" in note for note in made.notes)
    assert kept == (kind == "gru"), "its operators, not its activations, set the arena"


@needs_compiler
@pytest.mark.parametrize("name", ["index", "stdin", "memcpy", "unix", "tflm", "日本"])
def test_any_name_compiles(bundle, tmp_path, name):
    """A namespace must not be called like a function, a macro or a type of the C library."""
    old, new = identifier(ODD), identifier(name)
    for path in bundle.directory.glob("*.[hc]*"):
        text = path.read_text(encoding="utf-8").replace(old, new).replace(old.upper(), new.upper())
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    check_program(tmp_path, "test_main.cc")


def test_names_of_inputs_that_differ_only_in_punctuation_stay_apart():
    names = ["x", "x_", "x_2", "日本", "日", "2.x"]
    ports = [Port(name, (1, 4), np.dtype(np.int8), 0.5, 0, 0) for name in names]
    described = [entry["identifier"] for entry in _described(ports, "input")]
    assert described == ["x", "x_2", "x_2_2", "input", "input_2", "2_x"]


@needs_compiler
def test_a_wrong_golden_vector_is_told(bundle, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(bundle.directory, folder)
    golden = folder / "golden_vectors.h"
    head, mark, tail = golden.read_text().partition("kGoldenOutput_head")
    changed = re.sub(r"-?\d+,", "99,", tail.partition("{")[2], count=1)
    golden.write_text(head + mark + tail.partition("{")[0] + "{" + changed)
    done = run_program(compile_program(folder, "test_main.cc", tmp_path / "test"), tmp_path)
    assert done.returncode == 1 and "1 values differ" in done.stdout


@needs_compiler
def test_the_example_runs_and_prints_a_label(bundle, tmp_path):
    done = run_program(compile_program(bundle.directory, "example_main.cc", tmp_path / "example"), tmp_path)
    assert done.returncode == 0
    assert any(f"head: {label}" in done.stdout for label in LABELS), done.stdout


@needs_cmake
def test_the_readme_is_all_a_firmware_developer_needs(bundle, tmp_path):
    said, build = follow_readme(bundle.directory, tmp_path)
    assert "8 samples, 0 values differ" in said and "100% tests passed" in said
    readme = (bundle.directory / "README.md").read_text()
    image = next(line for line in readme.splitlines() if line.startswith("| input | image |"))
    port = Runtime(bundle.directory / "model.tflite").inputs["image"]
    stored, real = np.int8(17), re.search(r"\(stored ([+-]\d+)\) \* (\S+) \|", image)
    assert (stored + int(real[1])) * float(real[2]) == pytest.approx(port.decode(stored))
    assert "0 of 40 output values of 8 samples differ" in readme
    done = run_program(build / "grosses_netz_2_model_example", tmp_path)
    assert done.returncode == 0 and any(f"head: {label}" in done.stdout for label in LABELS), done.stdout


@needs_compiler
@pytest.mark.parametrize("quantization", ["int8", "int16x8", None])
def test_two_inputs_and_two_outputs(tmp_path, rng, quantization):
    layers = keras.layers
    names = 'größe "x" ?\\', "class"
    a, b = keras.Input((4,), name=names[0]), keras.Input((6,), name=names[1])
    x = layers.Concatenate()([a, b])
    first, second = layers.Dense(3, name="first_one")(x), layers.Dense(2, activation="tanh", name="float")(x)
    samples = {name: rng.normal(size=(3, size)).astype(np.float32) for name, size in zip(names, (4, 6), strict=True)}
    net = keras.Model([a, b], [first, second], name="double")
    made = export_bundle(net, tmp_path / "b", "cortex-m", samples, labels=["x", "y", "z"], quantization=quantization)
    done = run_program(compile_program(made.directory, "test_main.cc", tmp_path / "test"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "namespace double_model" in (made.directory / "model_data.h").read_text()
    check_program(made.directory, "example_main.cc")


def test_what_the_interpreter_does_not_survive_is_an_error(tmp_path, bundle, monkeypatch):
    path = bundle.directory / "model.tflite"
    with pytest.raises(tflm.MicroError, match="does not fit into an arena of 16 bytes"):
        tflm.MicroRuntime(path, 16)  # it ends its process here
    with pytest.raises(FileNotFoundError):
        tflm.MicroRuntime(tmp_path / "none.tflite")
    junk = tmp_path / "junk.tflite"
    junk.write_bytes(b"\x10\0\0\0TFL3" + bytes(range(200)))
    with pytest.raises(ValueError, match="damaged or cut short"):
        tflm.MicroRuntime(junk)
    junk.write_bytes(b"hello")
    with pytest.raises(ValueError, match="not a .tflite file"):
        tflm.measure_arena(junk)


def _broad(units=600):
    layers = keras.layers
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.Input((16,), name="x"), layers.Dense(units, activation="relu"), layers.Dense(3, name="head")],
        name="broad",
    )


def test_dense_layers_get_one_scale_where_that_makes_the_arena_smaller(tmp_path, rng):
    samples = rng.normal(size=(40, 16)).astype(np.float32)
    made = export_bundle(_broad(), tmp_path / "b", "cortex-m", samples)
    each = export_bundle(_broad(), tmp_path / "each", "cortex-m", samples, per_channel_dense=True)
    arenas = [bundle.figures["arena"]["bytes"] for bundle in (made, each)]
    assert arenas[0] < 0.5 * arenas[1]
    assert any(f"the arena is {arenas[0]:,} bytes rather than {arenas[1]:,}" in note for note in made.notes)
    assert not any("per_channel_dense" in note for note in each.notes), "nothing was left to choose"
    readmes = [(bundle.directory / "README.md").read_text() for bundle in (made, each)]
    assert ["September 2024" in text for text in readmes] == [False, True]


def test_units_keep_their_scales_where_one_for_all_costs_accuracy(tmp_path, rng):
    model, samples = _broad(), rng.normal(size=(40, 16)).astype(np.float32)
    kernel, bias = model.layers[0].get_weights()
    # The first unit has by far the largest weights, and returns values as small as the others do: 0 nearly always.
    kernel[:, 0], bias[0] = 0, 2 - 30 * samples[:, 0].max()
    kernel[0, 0] = 30
    model.layers[0].set_weights([kernel, bias])
    made = export_bundle(model, tmp_path / "b", "cortex-m", samples)
    assert any(
        "The units of dense layers have a scale each. With per_channel_dense=False" in note for note in made.notes
    )
    assert "September 2024" in (made.directory / "README.md").read_text()


def test_a_few_units_are_not_worth_a_second_export(bundle):
    assert not any("per_channel_dense" in note for note in bundle.notes)


def test_a_board_s_memories_and_what_the_model_takes_of_them(tmp_path):
    made = export_bundle(flat_net(), tmp_path / "b", "arduino-nano-33-ble", numbers(12, 8, 8, 3))
    figures, board = made.figures, made.figures["board"]
    assert board["ram_bytes"] == 256 * 1024 and board["flash_bytes"] == 1024 * 1024
    assert board["ram_share"] == figures["arena"]["with_margin"] / board["ram_bytes"]
    assert board["flash_share"] == figures["flash_bytes_estimate"] / board["flash_bytes"]
    share = f"{100 * board['flash_share']:.1f} %"
    assert f"board, flash share: {board['flash_share']:.1%}" in str(made)
    assert share in (tmp_path / "b" / "README.md").read_text()
    assert f"{board['ram_share']:.1%}" in (tmp_path / "b" / "MODEL_CARD.md").read_text()
    assert json.loads((tmp_path / "b" / "model_card.json").read_text())["figures"]["board"] == board


def test_a_board_of_unknown_memories_has_no_shares(bundle):
    assert bundle.figures["board"] == {} and "share" not in str(bundle)
    assert "the board's" not in (bundle.directory / "README.md").read_text()


@needs_compiler
def test_inputs_and_outputs_in_uint8(tmp_path):
    made = export_bundle(flat_net(), tmp_path / "b", "cortex-m", numbers(4, 8, 8, 3), integer_io="uint8", labels=LABELS)
    assert "using InputType_image = uint8_t;" in (made.directory / "model_config.h").read_text()
    for program in ("test_main.cc", "example_main.cc"):
        done = run_program(compile_program(made.directory, program, tmp_path / "program"), tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    source = tmp_path / "quantize.cc"
    source.write_text(
        '#include "model_config.h"\n#include <cstdio>\n#include <initializer_list>\nint main() {\n'
        '  const tiny_model::TensorInfo info = {"x", true, 0.5f, 100, 1, 1, {1}};\n'
        "  for (float real : {-1000.0f, -50.0f, 0.2f, 0.3f, 77.5f, 1000.0f})\n"
        '    std::printf("%d ", static_cast<int>(tiny_model::Quantize<uint8_t>(real, info)));\n}\n'
    )
    command = ["g++", "-std=c++17", f"-I{made.directory}", str(source), "-o", str(tmp_path / "quantize")]
    subprocess.run(command, check=True)
    assert subprocess.run([tmp_path / "quantize"], capture_output=True, text=True).stdout == "0 0 100 101 255 255 "


def test_floats_are_converted_by_the_code_not_by_the_file(tmp_path):
    with pytest.raises(ValueError, match="integer_io=False is for phones"):
        export_bundle(flat_net(), tmp_path / "b", "cortex-m", numbers(12, 8, 8, 3), integer_io=False)
