"""Metadata in a .tflite file: read back, harmless to what the file computes, and never a crash on junk."""

from __future__ import annotations

import io
import struct
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets.converted import convert, images, small_cnn

from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.metadata import ModelMetadata, TensorMetadata, read_metadata, write_metadata

LABELS = tuple(f"class {number} é 日本" for number in range(10))


def described(labels=LABELS):
    image = TensorMetadata("image", "12 x 12 pixels", "counts", "rgb", (127.5,), (127.5,), (-1,), (1,))
    return ModelMetadata(
        'Größe "A"\n日本',
        "tells\nUnits: no",
        "1.2",
        "me",
        "Apache-2.0",
        (image,),
        (TensorMetadata("scores", labels=labels),),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return convert(small_cnn(keras), tmp_path_factory.mktemp("source") / "model.tflite")


@pytest.fixture(scope="module")
def two_by_two(tmp_path_factory):
    first, second = (keras.Input(batch_shape=(1, 4), name=name) for name in "ab")
    outputs = [keras.layers.Dense(3)(first), keras.layers.Dense(2)(keras.layers.Concatenate()([first, second]))]
    return convert(keras.Model([first, second], outputs), tmp_path_factory.mktemp("two") / "model.tflite").read_bytes()


@pytest.fixture
def file(source, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(source.read_bytes())
    return path


def run(path, samples):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    results = []
    for sample in samples:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[None])
        interpreter.invoke()
        results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    return np.stack(results)


def output_sizes(path):
    from ai_edge_litert.interpreter import Interpreter

    return [int(detail["shape"][-1]) for detail in Interpreter(str(path)).get_output_details()]


def buffer_places(content):
    """Where the bytes of each buffer lie, found by their content; the schema's reader alone would not tell."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    places = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        places.append(buffer._tab.Vector(buffer._tab.Offset(4)) if buffer.DataLength() else None)
    return places


def schema_buffer(content, name=b"TFLITE_METADATA"):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    (number,) = [entry.buffer for entry in model.metadata if entry.name == name]
    return bytes(model.buffers[number].data)


def test_what_was_written_is_read(file):
    assert read_metadata(file) is None
    write_metadata(file, described())
    assert read_metadata(file) == described()


def test_the_file_computes_the_same_bit_for_bit(file):
    before = run(file, images())
    facts = read_tflite(file).to_dict()
    write_metadata(file, described())
    np.testing.assert_array_equal(run(file, images()), before)
    after = read_tflite(file).to_dict()
    assert after["operators"] == facts["operators"]
    # The metadata buffer is no tensor, so the tensors are the same.
    assert after["tensors"] == facts["tensors"]


def test_weights_keep_their_alignment(file, source):
    write_metadata(file, described())
    before, after = buffer_places(source.read_bytes()), buffer_places(file.read_bytes())
    shifts = {b - a for a, b in zip(before, after, strict=False) if a is not None}
    assert len(shifts) == 1
    assert shifts.pop() % 16 == 0
    assert after[len(before)] % 16 == 0  # the metadata's own


def test_a_file_that_was_aligned_stays_so_and_runs_on_a_microcontroller(file):
    aligner = pytest.importorskip(
        "tflite_micro.tensorflow.lite.micro.tools.tflite_flatbuffer_align_wrapper",
        reason="tflite-micro is not installed",
    )
    from tflite_micro import runtime

    aligner.align_tflite_model(str(file), str(file))
    write_metadata(file, described())
    assert {place % 16 for place in buffer_places(file.read_bytes()) if place is not None} == {0}
    interpreter = runtime.Interpreter.from_bytes(file.read_bytes(), arena_size=400_000)
    interpreter.set_input(images(1), 0)
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_output(0), run(file, images(1))[0], atol=1e-5)


def test_other_readers_of_flatbuffers_and_zip_read_it(file):
    """The schema of LiteRT finds the buffer and its identifier, and Python's zipfile the label file, uncompressed."""
    write_metadata(file, described())
    content = file.read_bytes()
    assert schema_buffer(content)[4:8] == b"M001"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (info,) = archive.infolist()
        assert (info.filename, info.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        assert archive.read(info).decode().split("\n") == list(LABELS)
        # Places in the archive count from the file's beginning, as MediaPipe takes them.
        assert content[info.header_offset : info.header_offset + 4] == b"PK\x03\x04"


def test_the_same_metadata_give_the_same_bytes(source, tmp_path):
    files = [tmp_path / name for name in ("a.tflite", "b.tflite")]
    for path in files:
        path.write_bytes(source.read_bytes())
        write_metadata(path, described())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_writing_again_replaces(file):
    write_metadata(file, described())
    once = file.stat().st_size
    expected = run(file, images())
    second = ModelMetadata("other", inputs=(TensorMetadata("x"),), outputs=(TensorMetadata("y"),))
    write_metadata(file, second)
    assert read_metadata(file) == second
    assert not zipfile.is_zipfile(file)
    assert file.stat().st_size < 2 * once
    np.testing.assert_array_equal(run(file, images()), expected)


def test_several_inputs_and_outputs_each_with_its_labels(two_by_two, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(two_by_two)
    labels = [("x", "y", "z"), ("p", "q")]
    if output_sizes(path) == [2, 3]:  # the converter's order
        labels.reverse()
    metadata = ModelMetadata(
        "two",
        inputs=(TensorMetadata("a", units="m/s²", minimum=(0, 1, 2, 3), maximum=(4, 5, 6, 7)), TensorMetadata("b")),
        outputs=(TensorMetadata("c", labels=labels[0]), TensorMetadata("d", labels=labels[1])),
    )
    write_metadata(path, metadata)
    assert read_metadata(path) == metadata
    swapped = ModelMetadata("two", inputs=metadata.inputs, outputs=metadata.outputs[::-1])
    with pytest.raises(ValueError, match="[23] values along its last axis .* cannot have [23] labels"):
        write_metadata(path, swapped)
    with pytest.raises(ValueError, match="has 2 inputs, the metadata describe 1"):
        write_metadata(path, ModelMetadata("one", inputs=metadata.inputs[:1], outputs=metadata.outputs))


text = st.text(st.characters(codec="utf-8"), max_size=20)
label = text.filter(lambda line: line.splitlines() == [line])
number = st.floats(-(2.0**100), 2.0**100, width=32)


@given(
    texts=st.tuples(text, text, text, text, text),
    name=text,
    units=text.filter(lambda units: "Units" not in units),
    description=text,
    mean=st.one_of(st.just(()), st.tuples(number), st.tuples(number, number, number)),
    labels=st.lists(label, min_size=10, max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_any_text_and_any_numbers_come_back(source, tmp_path_factory, texts, name, units, description, mean, labels):
    path = tmp_path_factory.mktemp("any") / "model.tflite"
    path.write_bytes(source.read_bytes())
    image = TensorMetadata(name, description, units, mean=mean, std=(2.0,) * len(mean))
    metadata = ModelMetadata(*texts, (image,), (TensorMetadata(name, labels=tuple(labels)),))
    write_metadata(path, metadata)
    assert read_metadata(path) == metadata


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ("a\nb",)}, "is not one line of text"),
        ({"labels": ("",)}, "is not one line of text"),
        ({"labels": ("\ud800",)}, "cannot be stored as UTF-8"),
        ({"mean": (1.0,)}, "as many values of mean as of std"),
        ({"mean": (1.0,), "std": (0.0,)}, "std of 0"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "mean must be finite"),
        ({"mean": (1e39,), "std": (1.0,)}, "mean must be finite"),
        ({"minimum": (0.0,)}, "as many values of minimum as of maximum"),
        ({"image": "bgr"}, "must be 'rgb', 'grayscale' or None"),
        ({"units": "x" * 70_000}, "65,536 are the most"),
    ],
)
def test_metadata_that_cannot_be_stored_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TensorMetadata("name", **arguments)


def test_channels_must_fit(file):
    bad = TensorMetadata("image", mean=(1.0, 2.0), std=(1.0, 1.0))
    with pytest.raises(ValueError, match="has 3 channels .* pass one mean or 3, not 2"):
        write_metadata(file, ModelMetadata("m", inputs=(bad,), outputs=(TensorMetadata("y"),)))


def test_nothing_is_written_where_writing_fails(file, source):
    with pytest.raises(ValueError, match="cannot have 3 labels"):
        write_metadata(file, described(("a", "b", "c")))
    assert file.read_bytes() == source.read_bytes()
    assert [path.name for path in file.parent.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize("call", [read_metadata, lambda path: write_metadata(path, described())])
def test_no_file_and_junk(call, tmp_path):
    with pytest.raises(FileNotFoundError, match="No .tflite file"):
        call(tmp_path / "none.tflite")
    for junk in (b"", b"junk", bytes(100), b"\xff" * 4 + b"TFL3" + b"\xff" * 40, b"\x08\0\0\0TFL3"):
        (tmp_path / "junk.tflite").write_bytes(junk)
        with pytest.raises(ValueError, match=r"junk\.tflite"):
            call(tmp_path / "junk.tflite")


def test_a_file_cut_short_anywhere_is_refused_or_read(file):
    write_metadata(file, described())
    content = file.read_bytes()
    for length in range(0, len(content), 97):
        file.write_bytes(content[:length])
        try:
            assert isinstance(read_metadata(file), ModelMetadata | None)
        except ValueError as error:
            assert "model.tflite" in str(error)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_hostile_bytes_give_a_result_or_one_error(source, tmp_path_factory, data):
    """Offsets, lengths and texts of the front, where root and metadata lie, and of the archive are overwritten."""
    path = tmp_path_factory.getbasetemp() / "hostile.tflite"
    if not path.exists():
        path.write_bytes(source.read_bytes())
        write_metadata(path, described())
        path.with_suffix(".kept").write_bytes(path.read_bytes())
    content = bytearray(path.with_suffix(".kept").read_bytes())
    grown = len(content) - source.stat().st_size
    front = st.integers(0, grown)
    back = st.integers(len(content) - 500, len(content) - 4)
    for place in data.draw(st.lists(st.one_of(front, back), min_size=1, max_size=4)):
        struct.pack_into(
            "<I", content, place, data.draw(st.sampled_from([0, 1, 4, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFF, 64]))
        )
    path.write_bytes(content)
    for call in (read_metadata, lambda file: write_metadata(file, described())):
        try:
            call(path)
        except ValueError as error:
            assert "hostile.tflite" in str(error)


def test_labels_that_would_unpack_to_gigabytes_are_refused(file):
    write_metadata(file, described())
    content = file.read_bytes()
    start = content.rindex(b"PK\x03\x04", 0, content.index(b"PK\x01\x02"))
    packed = io.BytesIO()
    packed.write(content[:start])
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", bytes(1 << 25))
    file.write_bytes(packed.getvalue())
    assert len(packed.getvalue()) < 1 << 20
    with pytest.raises(ValueError, match="label file 'labels.txt' is too large"):
        read_metadata(file)


def test_mediapipe_reads_it(file):
    """MediaPipe's own schema, where it is installed: it pins other versions than TensorFlow's."""
    schema = pytest.importorskip(
        "mediapipe.tasks.metadata.metadata_schema_py_generated", reason="mediapipe is not installed"
    )
    write_metadata(file, described())
    model = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(schema_buffer(file.read_bytes()), 0))
    assert model.name.decode() == described().name
    assert model.license == b"Apache-2.0"
    (graph,) = model.subgraphMetadata
    (image,), (scores,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert image.content.contentProperties.colorSpace == schema.ColorSpaceType.RGB
    assert list(image.processUnits[0].options.mean) == [127.5]
    assert list(image.stats.min) == [-1.0]
    assert scores.associatedFiles[0].name == b"labels.txt"
    assert scores.associatedFiles[0].type == schema.AssociatedFileType.TENSOR_AXIS_LABELS


def test_mediapipe_classifies_with_it(tmp_path):
    """MediaPipe's ImageClassifier finds the labels, and normalises pixels as the metadata say."""
    mediapipe = pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    from mediapipe.tasks.python import BaseOptions, vision

    layers = keras.layers
    image = keras.Input(batch_shape=(1, 16, 16, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(image))
    model = keras.Model(image, layers.Dense(10, activation="softmax")(x))
    path = convert(model, tmp_path / "model.tflite")
    write_metadata(path, described())
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    options = vision.ImageClassifierOptions(BaseOptions(model_asset_path=str(path)), max_results=10)
    with vision.ImageClassifier.create_from_options(options) as classifier:
        given = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
        categories = classifier.classify(given).classifications[0].categories
    expected = run(path, [(pixels.astype(np.float32) - 127.5) / 127.5])[0, 0]
    assert {entry.category_name for entry in categories} == set(LABELS)
    for entry in categories:
        assert entry.score == pytest.approx(expected[entry.index], abs=1e-5)


@pytest.mark.parametrize("wrong", [None, {}, "text", TensorMetadata("x")])
def test_what_is_no_metadata_is_refused_before_the_file_is_read(wrong):
    with pytest.raises(TypeError, match="metadata must be a ModelMetadata"):
        write_metadata("absent.tflite", wrong)
    for field in ("inputs", "outputs"):
        with pytest.raises(TypeError, match=f"The model's {field} must be a tuple of TensorMetadata"):
            ModelMetadata("name", **{field: wrong})
