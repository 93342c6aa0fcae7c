"""Read .npz and .npy files that anybody may have written: nothing runs, and what they declare is checked first."""

from __future__ import annotations

import lzma
import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# What zipfile, the decompressors and NumPy's reader of headers raise for damaged files.
_DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_CHUNK = 1 << 20
# Deflate makes nothing smaller than this.
_LARGEST_RATIO = 1032


def read_arrays(path: str | Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read some of the arrays of a .npz file.

    Args:
        path: a file as `numpy.savez` or `numpy.savez_compressed` writes it.
        names: the arrays to read, of those that are there; with `x` also `x.left` and whatever else begins so.

    Returns:
        Name to array of real numbers, in the machine's byte order. Other arrays of the file are not read.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is damaged, is no .npz file, holds an array twice, or holds something else than real
            numbers under one of the names.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No data file at {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a .npz file; write one with numpy.savez(path, x=..., y=...).")
    arrays: dict[str, np.ndarray] = {}
    member = None
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name.partition(".")[0] not in names:
                    continue
                if name in arrays:
                    raise ValueError("it is there twice.")
                _check_member(member, path.stat().st_size)
                with archive.open(member) as file:
                    arrays[name] = _array(file, member.file_size)
    except _DAMAGE as error:
        where = path if member is None else f"{path}: {member.filename!r}"
        raise _damaged(where, error) from error
    return arrays


def read_array(path: str | Path) -> np.ndarray:
    """Read the array of a .npy file.

    Args:
        path: a file as `numpy.save` writes it.

    Returns:
        An array of real numbers, in the machine's byte order.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: the file is damaged, is no .npy file, or holds something else than real numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No data file at {path}")
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def memory() -> int:
    """How many bytes this process may hope for: the machine's memory, or a container's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdecimal() else total


def _damaged(where: str | Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"{where} cannot be read: {reason}")


def _check_member(member: zipfile.ZipInfo, archive_size: int) -> None:
    """Refuse what cannot be read, and sizes that cannot be true, before memory is asked for."""
    if member.flag_bits & 1:
        raise ValueError("it is encrypted.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("it is compressed by a method that NumPy does not use.")
    ratio = _LARGEST_RATIO if member.compress_type == zipfile.ZIP_DEFLATED else 1
    if member.compress_size > archive_size or member.file_size > ratio * member.compress_size + _CHUNK:
        raise ValueError(f"it declares {member.file_size:,} bytes, more than the file can hold.")
    if member.file_size > memory():
        raise ValueError(f"it has {member.file_size:,} bytes, more than this machine's memory.")


def _array(file: IO[bytes], file_size: int) -> np.ndarray:
    import numpy as np

    shape, fortran_order, dtype = _header(file)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise ValueError(f"it holds {_described(dtype)}; real numbers of up to 64 bits are needed.")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"its shape is {shape}.")
    declared, there = math.prod(shape) * dtype.itemsize, file_size - file.tell()
    if declared != there:
        raise ValueError(f"its header declares {declared:,} bytes, and {there:,} are there.")
    array = np.empty(math.prod(shape), dtype)
    target = memoryview(array.view(np.uint8).data)
    done = 0
    while chunk := file.read(_CHUNK):  # to the very end, where the checksum is compared
        target[done : done + len(chunk)] = chunk
        done += len(chunk)
    if done < declared:
        raise ValueError(f"it ends after {done:,} of {declared:,} bytes.")
    array = array.reshape(shape, order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    if version == (2, 0):
        return npy.read_array_header_2_0(file)
    raise ValueError(f"its format is version {version}, which holds no plain numbers.")


def _described(dtype: np.dtype) -> str:
    if dtype.hasobject:
        return "Python objects"
    return {"U": "text", "S": "bytes", "c": "complex numbers", "M": "dates", "m": "durations"}.get(
        dtype.kind, f"values of type {dtype}"
    )
