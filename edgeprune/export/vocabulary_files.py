"""The files beside one whose preprocessing is left to the application: its vocabularies, one entry a line."""

from __future__ import annotations

import re
from pathlib import Path

from edgeprune.export.preprocessing_split import SplitModel
from edgeprune.tflite.file import read_tflite
from edgeprune.tflite.metadata import ModelMetadata, TensorMetadata, write_metadata


def vocabulary_texts(split: SplitModel) -> dict[str, str]:
    """The vocabulary files of a split model.

    Returns:
        Name of each file to its content: `vocabulary.txt`, or one for each of several lookup layers,
        `vocabulary_LAYER.txt`. The number of a line, counted from 0, is the number that the layer returns.

    Raises:
        ValueError: an entry holds a line break, so that it would be two lines.
    """
    texts = {}
    for layer, entries in split.vocabularies.items():
        broken = next((entry for entry in map(str, entries) if entry.splitlines() not in ([entry], [])), None)
        if broken is not None:
            raise ValueError(
                f"Layer {layer!r} has {broken!r} in its vocabulary, which is not one line of a text file: write the "
                "vocabulary yourself, from edgeprune.split_preprocessing(model).vocabularies, and export its rest."
            )
        texts[_file_name(layer, split)] = "".join(f"{entry}\n" for entry in entries)
    return texts


def preprocessing_lines(split: SplitModel) -> list[str]:
    """What the application has to do before it calls the rest: a sentence for each lookup layer."""
    return [
        f"The application does the preprocessing of {layer!r}, {settings}"
        + (f"; {_file_name(layer, split)} has its vocabulary." if layer in split.vocabularies else ".")
        for layer, settings in split.settings.items()
    ]


def describe_preprocessing(path: Path, split: SplitModel) -> None:
    """Write into a .tflite file's metadata what the application has to do before it."""
    file = read_tflite(path)
    given = {name: f"From {name!r}." for name in split.given}
    write_metadata(
        path,
        ModelMetadata(
            split.rest.name,
            "\n".join(preprocessing_lines(split)),
            inputs=tuple(TensorMetadata(port.name, given.get(port.name, "")) for port in file.inputs),
            outputs=tuple(TensorMetadata(port.name) for port in file.outputs),
        ),
    )


def _file_name(layer: str, split: SplitModel) -> str:
    if len(split.vocabularies) == 1:
        return "vocabulary.txt"
    name = re.sub(r"[^\w.-]", "_", layer)
    return f"vocabulary_{name}.txt"
