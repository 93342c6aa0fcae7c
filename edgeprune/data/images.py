"""Images from a folder, read by Keras's own `image_dataset_from_directory`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from edgeprune import flavor
from edgeprune.data.npz import memory
from edgeprune.data.ports import Ports
from edgeprune.data.samples import Data, assembled
from edgeprune.progress import track

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")  # those that Keras reads
_TRAIN, _TEST = "train", ("test", "validation", "val")  # folders of parts; of the latter the first that is there
_BATCH_SIZE = 32
_SIZE, _COLORS = (256, 256), {1: "grayscale", 3: "rgb", 4: "rgba"}


def open_folder(path: Path) -> Callable[[Ports | None], Data]:
    """Find the images of a folder.

    Args:
        path: a folder of images, or with a folder of images for each class, or with a folder `train` and another one
            `test`, `validation` or `val` of such folders.

    Returns:
        A function that reads the images in the size that a model expects: `(samples, height, width, channels)` of
        float32 from 0 to 255, and the classes' numbers as int32, or one-hot where the model's loss needs it.

    Raises:
        ValueError: there are no images, images in one class alone, or images of the two parts in other classes.

    Source: https://keras.io/api/data_loading/image/#imagedatasetfromdirectory-function
    """
    subfolders = set(_folders(path))
    held_out = next((name for name in _TEST if name in subfolders), None)
    if _TRAIN in subfolders and held_out and subfolders <= {_TRAIN, *_TEST}:
        parts = {"_train": path / _TRAIN, "_test": path / held_out}
    else:
        parts = {"": path}
    classes = {folder: _folders(folder) for folder in parts.values()}
    names = next(iter(classes.values()))
    for folder, found in classes.items():
        if found != names:
            raise ValueError(f"{folder} has the classes {found}, and {parts['_train']} has {names}.")
        _check_images(folder, found)

    def read(ports: Ports | None) -> Data:
        size, channels = _image_shape(path, ports)
        arrays: dict[str, np.ndarray] = {}
        for suffix, folder in parts.items():
            arrays[f"x{suffix}"], labels = _read(folder, bool(names), size, channels, ports)
            if names:
                arrays[f"y{suffix}"] = labels
        return assembled(str(path), arrays, tuple(names) or None)

    return read


def _folders(path: Path) -> list[str]:
    """The names of the folders in a folder, sorted; Keras passes over those that begin with a dot."""
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _check_images(folder: Path, classes: list[str]) -> None:
    where = [folder / name for name in classes] or [folder]
    empty = [str(place) for place in where if not any(_is_image(file) for file in place.rglob("*"))]
    if len(empty) == len(where):
        raise ValueError(
            f"{folder} holds no images: files that end in {', '.join(IMAGE_SUFFIXES)}, in a folder a class."
        )
    if empty:
        raise ValueError(f"{', '.join(empty)} holds no images, and would count as a class.")
    if len(classes) == 1:
        raise ValueError(
            f"{folder} has one folder, {classes[0]}, and one class cannot be classified: pass "
            f"{folder / classes[0]} for images without classes."
        )


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()


def _image_shape(path: Path, ports: Ports | None) -> tuple[tuple[int, int], int]:
    """Height and width, and channels, of the images a model accepts."""
    if ports is None:
        return _SIZE, 3
    shapes = list(ports.inputs.values())
    if len(shapes) != 1 or len(shapes[0]) != 3:
        raise ValueError(f"{path} is a folder of images, and {ports.model} has inputs of shape {shapes}: no images.")
    *size, channels = shapes[0] if not ports.channels_first else (*shapes[0][1:], shapes[0][0])
    channels = 3 if channels is None else channels
    if channels not in _COLORS:
        raise ValueError(f"{path} is a folder of images, and {ports.model} expects images of {channels} channels.")
    height, width = (fixed or default for fixed, default in zip(size, _SIZE, strict=True))
    return (height, width), channels


def _read(
    folder: Path, labelled: bool, size: tuple[int, int], channels: int, ports: Ports | None
) -> tuple[np.ndarray, np.ndarray]:
    keras = flavor.keras_module(flavor.KERAS_3)
    dataset = keras.utils.image_dataset_from_directory(
        str(folder),
        labels="inferred" if labelled else None,
        label_mode=("categorical" if ports is not None and ports.one_hot else "int") if labelled else None,
        color_mode=_COLORS[channels],
        batch_size=_BATCH_SIZE,
        image_size=size,
        shuffle=False,
        data_format="channels_first" if ports is not None and ports.channels_first else "channels_last",
        verbose=False,
    )
    files = dataset.file_paths
    needed = 4 * len(files) * math.prod(size) * channels
    if needed > memory():
        raise ValueError(
            f"{folder}: {len(files):,} images of {size[0]} x {size[1]} x {channels} are {needed:,} bytes, more than "
            "this machine's memory; name a folder with fewer of them."
        )
    import tensorflow as tf

    try:
        batches = [_arrays(batch) for batch in track(dataset, f"Reading {folder}")]
    except tf.errors.OpError as error:
        _name_unreadable(files, channels, error)
        raise
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _arrays(batch: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = batch if isinstance(batch, tuple) else (batch, np.zeros(len(batch)))
    return np.asarray(images), np.asarray(labels)


def _name_unreadable(files: Iterable[str], channels: int, cause: Exception) -> None:
    """Raise an error that names the first file that is no image: TensorFlow's names none."""
    import tensorflow as tf

    for file in files:
        try:
            tf.io.decode_image(tf.io.read_file(file), channels=channels, expand_animations=False)
        except tf.errors.OpError:
            raise ValueError(f"{file} cannot be read as an image.") from cause
