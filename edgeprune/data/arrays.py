"""Arrays from .npz and .npy files."""

from __future__ import annotations

from pathlib import Path

from edgeprune.data.npz import read_array, read_arrays
from edgeprune.data.samples import NAMES, Data, assembled


def read_npz(path: Path) -> Data:
    """The samples of a .npz file: its arrays that have one of the names of samples, such as `x`, `y` and `x.left`.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is damaged, or its arrays are no samples.
    """
    return assembled(str(path), read_arrays(path, NAMES))


def read_npy(path: Path) -> Data:
    """The samples of a .npy file: inputs alone.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is damaged, or its array holds no samples.
    """
    return assembled(str(path), {"x": read_array(path)})
