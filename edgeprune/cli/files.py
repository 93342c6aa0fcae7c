"""The files a command reads and writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeprune.datasets import Arrays

MODEL_SUFFIXES = (".keras", ".h5")
TFLITE_SUFFIX = ".tflite"


def check_output(path: Path, force: bool, suffixes: tuple[str, ...]) -> None:
    """Refuse an output that could not be written, before the slow part."""
    from edgeprune.atomic import check_parents

    if path.suffix not in suffixes:
        raise ValueError(f"{path}: the output must end in {' or '.join(suffixes)}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not force:
        raise FileExistsError(f"{path} exists.")
    check_parents(path)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, whose editor may have begun it with a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error.reason} at byte {error.start}.") from error


def read_data(data: Path) -> Arrays:
    """The arrays of a .npz file."""
    from edgeprune.datasets import load_npz

    return load_npz(data)


def load_model(path: Path, unsafe: bool) -> Any:
    """A model of either Keras, without what its reading prints."""
    from edgeprune import flavor
    from edgeprune.progress import status
    from edgeprune.quiet import captured_output

    with status(f"Reading {path}"), captured_output():
        return flavor.load_model(path, safe_mode=not unsafe)


def save_model(model: Any, path: Path, force: bool) -> None:
    """Write a model, whole or not at all."""
    from edgeprune.atomic import atomic_path
    from edgeprune.quiet import captured_output

    with atomic_path(path, overwrite=force) as temporary, captured_output():
        model.save(temporary)


def write_text(text: str, path: Path, force: bool) -> None:
    """Write a text, whole or not at all."""
    from edgeprune.atomic import atomic_path

    with atomic_path(path, overwrite=force) as temporary:
        temporary.write_text(text)


def start_tensorflow() -> None:
    """Import TensorFlow without what it says at its start."""
    from edgeprune.progress import status
    from edgeprune.quiet import captured_output

    with status("Starting TensorFlow"), captured_output():
        import tensorflow  # noqa: F401
