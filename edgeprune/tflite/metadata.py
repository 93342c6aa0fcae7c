"""Write into a .tflite file what it is and how to call it, and read that back.

    write_metadata("model.tflite", ModelMetadata("Digits", inputs=(...), outputs=(...)))
    print(read_metadata("model.tflite").outputs[0].labels)

The format is TFLite's model metadata: a flatbuffer (identifier `M001`) in a buffer named `TFLITE_METADATA`, and label
files in a zip archive behind the model, which MediaPipe and Android Studio read. Nothing that is in the file is moved
against anything else: a new root is put in front that points into the old content, so the weights keep their
alignment (to 16 bytes, where the file was aligned before) and the model computes the same, bit for bit. A tool that
rewrites the file afterwards, such as an aligner, drops the archive: align first, then write metadata.

Source: https://ai.google.dev/edge/litert/conversion/tensorflow/metadata
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.atomic import atomic_path
from edgeprune.tflite.file import read_tflite, tflite_bytes
from edgeprune.tflite.flatbuffer_tables import (
    MOST_TEXT_BYTES,
    Broken,
    FlatTable,
    root_of,
    target_of,
    write_floats,
    write_table,
    write_vector,
)
from edgeprune.tflite.label_archive import archive_start, label_archive, label_file_names, read_labels_of

if TYPE_CHECKING:
    import flatbuffers

_BUFFER_NAME = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
# The first version of the format has all the fields that are written here.
_PARSER_VERSION = "1.0.0"
_ALIGNMENT = 16
# The fields of a model's root that LiteRT 2.3 knows; all but the first are offsets.
_MODEL_FIELDS = 10
# Numbers of fields and of kinds, from tensorflow_lite_support/metadata/metadata_schema.fbs.
_FEATURE, _IMAGE = 1, 2
_COLORS = {"rgb": 1, "grayscale": 2}
_NORMALIZATION = 1
_AXIS_LABELS = 2
# The format has no field for units, so they are the last line of a description.
_UNITS = "Units: "
# A flatbuffer ends before 2 GB; some space is for the metadata.
_MOST_BYTES = (1 << 31) - (1 << 24)


@dataclass(frozen=True)
class TensorMetadata:
    """What is known about one input or output.

    Attributes:
        name: what to call it.
        description: what it holds.
        units: what its values are measured in: `"m/s²"`.
        image: `"rgb"` or `"grayscale"` for pixels, `None` for anything else.
        mean: what is subtracted from raw values before the model, one number or one for each channel.
        std: what the rest is divided by, as many numbers as `mean`.
        minimum: the smallest value of the input or output, one number or one for each channel.
        maximum: the largest.
        labels: what each place along the last axis of an output stands for; `None` without.

    Numbers are rounded to float32, which is what the file holds.

    Raises:
        ValueError: a number is not finite, numbers do not pair up, or a label cannot be a line of a text file.

    Example:
        >>> TensorMetadata("image", image="rgb", mean=(127.5,), std=(127.5,)).std
        (127.5,)
    """

    name: str
    description: str = ""
    units: str = ""
    image: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be read back."""
        for text in ("name", "description", "units"):
            _check_text(f"The {text} of {self.name!r}", getattr(self, text))
        if self.image is not None and self.image not in _COLORS:
            raise ValueError(f"{self.name!r}: image must be 'rgb', 'grayscale' or None, got {self.image!r}.")
        for field in ("mean", "std", "minimum", "maximum"):
            object.__setattr__(self, field, self._float32(field))
        for one, other in (("mean", "std"), ("minimum", "maximum")):
            if len(getattr(self, one)) != len(getattr(self, other)):
                raise ValueError(f"{self.name!r} must have as many values of {one} as of {other}.")
        if 0.0 in self.std:
            raise ValueError(f"{self.name!r}: a std of 0 (rounded to float32) cannot be divided by.")
        if self.labels is not None:
            object.__setattr__(self, "labels", tuple(self.labels))
            for label in self.labels:
                _check_text(f"Label {label!r} of {self.name!r}", label)
                if label.splitlines() != [label]:
                    raise ValueError(f"Label {label!r} of {self.name!r} is not one line of text.")

    def _float32(self, field: str) -> tuple[float, ...]:
        values = np.atleast_1d(np.asarray(getattr(self, field), np.float64))
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float32)
        if rounded.ndim != 1 or not np.isfinite(rounded).all():
            raise ValueError(f"{self.name!r}: {field} must be finite numbers, got {getattr(self, field)}.")
        return tuple(map(float, rounded))


@dataclass(frozen=True)
class ModelMetadata:
    """What is known about a model.

    Attributes:
        name: what to call it.
        description: what it does.
        version: its version.
        author: who made it.
        license: the terms it is distributed under.
        inputs: one entry for each input, in the file's order.
        outputs: one entry for each output, in the file's order.

    Raises:
        TypeError: an entry of `inputs` or `outputs` is no `TensorMetadata`.
        ValueError: a text cannot be stored as UTF-8.
    """

    name: str
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""
    inputs: tuple[TensorMetadata, ...] = ()
    outputs: tuple[TensorMetadata, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could not be read back."""
        for text in ("name", "description", "version", "author", "license"):
            _check_text(f"The model's {text}", getattr(self, text))
        for field in ("inputs", "outputs"):
            entries = getattr(self, field)
            if not isinstance(entries, tuple | list) or not all(isinstance(entry, TensorMetadata) for entry in entries):
                raise TypeError(f"The model's {field} must be a tuple of TensorMetadata, got {entries!r}.")


def write_metadata(path: str | Path, metadata: ModelMetadata) -> None:
    """Write metadata into a .tflite file, in the place of any that it has.

    Args:
        path: the file; it is replaced whole or not at all. What an earlier writer left inside the file remains as
            a few dead bytes; its archive is removed.
        metadata: one entry for each input and each output of the file, in the file's order.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `metadata` is no `ModelMetadata`.
        ValueError: the file is no readable .tflite file or is over 2 GB, or the metadata do not fit its inputs and
            outputs.

    Example:
        >>> image = TensorMetadata("image", image="grayscale", mean=(0.0,), std=(255.0,))
        >>> digits = ModelMetadata("Digits", inputs=(image,), outputs=(TensorMetadata("scores"),))
        >>> write_metadata("model.tflite", digits)
        >>> read_metadata("model.tflite").inputs[0].std
        (255.0,)
    """
    if not isinstance(metadata, ModelMetadata):
        raise TypeError(f"metadata must be a ModelMetadata, got {type(metadata).__name__}.")
    path = Path(path)
    read_tflite(path)  # refuses junk and broken files
    content = path.read_bytes()
    try:
        model = root_of(content)
        _check_fit(path, model, metadata)
        if _metadata_buffer(model) is not None:
            content = content[: archive_start(content)]
        labels = [entry.labels for entry in metadata.outputs]
        label_files = label_file_names(labels)
        _check_layout(path, model)
        packed = _with_buffer(content, root_of(content), _packed(metadata, label_files))
    except Broken as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(packed + label_archive(label_files, labels, len(packed)))
        try:
            read_tflite(unfinished)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: with metadata it could not be read.") from error


def read_metadata(path: str | Path) -> ModelMetadata | None:
    """Read the metadata of a .tflite file, whoever wrote it.

    Args:
        path: the file. It is treated as untrusted: whatever it holds, a result or one error comes.

    Returns:
        The metadata; `None` if the file has none. Fields of the format that `ModelMetadata` does not have are
        left out.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is no .tflite file, or its metadata or its label files are damaged.

    Example:
        >>> read_metadata("model.tflite") is None  # the file has none
        True
    """
    content = tflite_bytes(path)
    try:
        number = _metadata_buffer(root_of(content))
        return None if number is None else _unpacked(_buffer(root_of(content), number), content)
    except (Broken, ValueError) as error:
        raise ValueError(f"{path} has damaged metadata: {error}") from error


# Fields of schema.fbs. Model: 0 version, 2 subgraphs, 4 buffers, 6 metadata. Metadata: 0 name, 1 buffer. Buffer:
# 0 data, 1 offset, 2 size. SubGraph: 0 tensors, 1 inputs, 2 outputs. Tensor: 0 shape.


def _metadata_buffer(model: FlatTable) -> int | None:
    """The number of the buffer that holds the metadata."""
    numbers = [entry.number(1, "<I") for entry in model.tables(6) if entry.text(0) == _BUFFER_NAME]
    return numbers[0] if numbers else None


def _buffer(model: FlatTable, number: int) -> bytes:
    content, place, length = model.vector(4, 4)
    if number >= length:
        raise Broken("there is no buffer of the metadata's number")
    content, place, length = FlatTable(content, target_of(content, place + 4 * number)).vector(0, 1)
    return content[place : place + length]


def _check_fit(path: Path, model: FlatTable, metadata: ModelMetadata) -> None:
    graphs = model.tables(2)
    if not graphs:
        raise ValueError(f"{path} has no graph to describe.")
    for kind, field, given in (("input", 1, metadata.inputs), ("output", 2, metadata.outputs)):
        tensors = graphs[0].integers(field)
        if len(given) != len(tensors):
            raise ValueError(f"{path} has {len(tensors)} {kind}s, the metadata describe {len(given)}.")
        for entry, tensor in zip(given, tensors, strict=True):
            _check_channels(path, entry, _shape(graphs[0], tensor))


def _shape(graph: FlatTable, tensor: int) -> tuple[int, ...]:
    content, place, length = graph.vector(0, 4)
    if not 0 <= tensor < length:
        raise Broken("an input or output is no tensor of the graph")
    return FlatTable(content, target_of(content, place + 4 * tensor)).integers(0)


def _check_channels(path: Path, entry: TensorMetadata, shape: tuple[int, ...]) -> None:
    channels = shape[-1] if shape else 1
    if entry.labels is not None and len(entry.labels) != channels:
        raise ValueError(
            f"{entry.name!r} in {path} has {channels} values along its last axis {shape}, so it cannot have "
            f"{len(entry.labels)} labels."
        )
    for field in ("mean", "minimum"):
        if len(getattr(entry, field)) not in (0, 1, channels):
            raise ValueError(
                f"{entry.name!r} in {path} has {channels} channels {shape}: pass one {field} or {channels}, "
                f"not {len(getattr(entry, field))}."
            )


def _with_buffer(content: bytes, model: FlatTable, data: bytes) -> bytes:
    """The file with a new root in front: a copy of the old one that has the data as a buffer more.

    A builder of flatbuffers fills its memory from the end to the front, so the old content can be laid where its
    first entries would be. It is shifted by a multiple of 16 bytes, and so keeps its alignment.
    """
    import flatbuffers

    content += bytes(-len(content) % _ALIGNMENT)
    builder = flatbuffers.Builder(len(content) + 2 * len(data) + 4096)
    builder.head -= len(content)
    builder.Bytes[builder.head :] = content

    def old(target: int) -> int:
        return len(content) - target  # builders count from the end

    buffers = [old(entry.position) for entry in model.tables(4, None)]
    entries = [(entry, old(entry.position)) for entry in model.tables(6)]
    text = builder.CreateString(_BUFFER_NAME)
    builder.StartVector(1, len(data), _ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    buffer = write_table(builder, {0: builder.EndVector()})
    number = _metadata_buffer(model)
    if number is None:
        number = len(buffers)
    kept = [position for entry, position in entries if entry.text(0) != _BUFFER_NAME]
    entry = write_table(builder, {0: text}, {1: (number, builder.PrependUint32Slot)})
    buffers[number : number + 1] = [buffer]
    fields = {field: old(target) for field in range(1, _MODEL_FIELDS) if (target := model.target(field)) is not None}
    fields[4] = write_vector(builder, buffers)
    fields[6] = write_vector(builder, [*kept, entry])
    root = write_table(builder, fields, {0: (model.number(0, "<I"), builder.PrependUint32Slot)})
    builder.Finish(root, b"TFL3")
    return bytes(builder.Output())


def _check_layout(path: Path, model: FlatTable) -> None:
    """Refuse what cannot be copied into a new root."""
    if model.fields() > _MODEL_FIELDS:
        raise ValueError(f"{path} has a root of {model.fields()} fields; this package knows {_MODEL_FIELDS}.")
    # Buffers behind the flatbuffer are found by places in the file, which would shift.
    if len(model.content) > _MOST_BYTES or any(entry.number(1, "<Q") > 1 for entry in model.tables(4, None)):
        raise ValueError(f"{path} has its weights after the model (over 2 GB), so metadata cannot be added.")


# How the metadata's own tables are numbered. ModelMetadata: 0 name, 1 description, 2 version, 3 subgraphs, 4 author,
# 5 license, 7 smallest parser version. SubGraphMetadata: 2 inputs, 3 outputs. TensorMetadata: 0 name, 1 description,
# 3 content, 4 process units, 5 stats, 6 associated files. Content: 0 kind, 1 properties. ProcessUnit: 0 kind,
# 1 options. NormalizationOptions: 0 mean, 1 std. Stats: 0 max, 1 min. AssociatedFile: 0 name, 2 kind.


def _packed(metadata: ModelMetadata, label_files: Mapping[int, str]) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder()
    inputs = [_packed_tensor(builder, entry, None) for entry in metadata.inputs]
    outputs = [_packed_tensor(builder, entry, label_files.get(i)) for i, entry in enumerate(metadata.outputs)]
    graph = write_table(builder, {2: write_vector(builder, inputs), 3: write_vector(builder, outputs)})
    fields = {
        0: builder.CreateString(metadata.name),
        1: builder.CreateString(metadata.description),
        2: builder.CreateString(metadata.version),
        3: write_vector(builder, [graph]),
        4: builder.CreateString(metadata.author),
        5: builder.CreateString(metadata.license),
        7: builder.CreateString(_PARSER_VERSION),
    }
    builder.Finish(write_table(builder, fields), _IDENTIFIER)
    return bytes(builder.Output())


def _packed_tensor(builder: flatbuffers.Builder, entry: TensorMetadata, label_file: str | None) -> int:
    description = entry.description + (f"\n{_UNITS}{entry.units}" if entry.units else "")
    kind = _IMAGE if entry.image else _FEATURE
    color = {0: (_COLORS[entry.image], builder.PrependInt8Slot)} if entry.image else {}
    content = write_table(builder, {1: write_table(builder, {}, color)}, {0: (kind, builder.PrependUint8Slot)})
    fields = {0: builder.CreateString(entry.name), 1: builder.CreateString(description), 3: content}
    if entry.mean:
        options = write_table(builder, {0: write_floats(builder, entry.mean), 1: write_floats(builder, entry.std)})
        unit = write_table(builder, {1: options}, {0: (_NORMALIZATION, builder.PrependUint8Slot)})
        fields[4] = write_vector(builder, [unit])
    if entry.minimum:
        fields[5] = write_table(
            builder, {0: write_floats(builder, entry.maximum), 1: write_floats(builder, entry.minimum)}
        )
    if label_file is not None:
        name = builder.CreateString(label_file)
        fields[6] = write_vector(
            builder, [write_table(builder, {0: name}, {2: (_AXIS_LABELS, builder.PrependInt8Slot)})]
        )
    return write_table(builder, fields)


def _unpacked(data: bytes, content: bytes) -> ModelMetadata:
    read_labels = functools.cache(functools.partial(read_labels_of, content))
    if data[4:8] != _IDENTIFIER:
        raise Broken(f"the buffer {_BUFFER_NAME} lacks the mark {_IDENTIFIER.decode()}")
    model = root_of(data)
    graphs = model.tables(3)
    inputs, outputs = (graphs[0].tables(2), graphs[0].tables(3)) if graphs else ([], [])
    return ModelMetadata(
        name=model.text(0),
        description=model.text(1),
        version=model.text(2),
        author=model.text(4),
        license=model.text(5),
        inputs=tuple(_unpacked_tensor(entry, read_labels) for entry in inputs),
        outputs=tuple(_unpacked_tensor(entry, read_labels) for entry in outputs),
    )


def _unpacked_tensor(entry: FlatTable, read_labels: Callable[[str], tuple[str, ...]]) -> TensorMetadata:
    head, marked, units = entry.text(1).rpartition(f"\n{_UNITS}")
    description, units = (head, units) if marked else (units, "")
    kind = entry.table(3)
    image = None
    if kind is not None and kind.number(0, "<B") == _IMAGE and (properties := kind.table(1)) is not None:
        image = {number: name for name, number in _COLORS.items()}.get(properties.number(0, "<b"))
    scalings = [unit.table(1) for unit in entry.tables(4) if unit.number(0, "<B") == _NORMALIZATION]
    normalization = scalings[0] if scalings else None
    mean, std = (normalization.floats(0), normalization.floats(1)) if normalization is not None else ((), ())
    stats = entry.table(5)
    maximum, minimum = (stats.floats(0), stats.floats(1)) if stats is not None else ((), ())
    files = [file.text(0) for file in entry.tables(6) if file.number(2, "<b") == _AXIS_LABELS]
    labels = read_labels(files[0]) if files else None
    return TensorMetadata(entry.text(0), description, units, image, mean, std, minimum, maximum, labels)


def _check_text(what: str, text: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{what} must be a text, got {text!r}.")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} cannot be stored as UTF-8: {error.reason}.") from error
    if size > MOST_TEXT_BYTES:
        raise ValueError(f"{what} has {size:,} bytes; {MOST_TEXT_BYTES:,} are the most.")
