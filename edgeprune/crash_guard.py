"""Read a file in a process of its own first: what crashes or stops a C++ library must not take the user's along.

LiteRT and HDF5 check much of a malformed file, not all: a few of them end the process or never come to an end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import h5py

# The digests of files that were read to their end, and the kernels: these need not be read elsewhere again.
_tried: set[tuple[bytes, str]] = set()
_SECONDS = 120  # far more than a large model takes to open and to run once
_REFUSED = 1  # the exit code of a Python exception


def try_out(path: str | Path, kernels: str = "AUTO") -> None:
    """Open a file in a process of its own; a .tflite file is run once. Content that was tried before is not again.

    Args:
        path: a `.tflite`, `.h5` or `.keras` file.
        kernels: those that a .tflite file runs on, the name of a member of LiteRT's `OpResolverType`: a file that one
            set of kernels refuses may end the process of another.

    Raises:
        FileNotFoundError: there is no file at `path`.
        ValueError: that process was ended by the file or did not come to an end, or LiteRT refuses to load it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"No file at {path}")
    with open(path, "rb") as file:
        trial = hashlib.file_digest(file, "sha256").digest(), kernels
    if trial in _tried:
        return
    command = [sys.executable, "-P", __file__, str(path), kernels]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{path} is damaged: reading it did not end within {_SECONDS} s.") from error
    if done.returncode == _REFUSED:
        reason = done.stderr.rpartition("Error: ")[2]
        raise ValueError(f"{path} does not load in the LiteRT interpreter: {' '.join(reason.split())[:300]}")
    if done.returncode:
        raise ValueError(f"{path} is damaged: reading it ends the process (exit code {done.returncode}).")
    _tried.add(trial)


def _run_tflite(path: str, kernels: str) -> None:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Its binding knows no names that are not UTF-8.
    interpreter = Interpreter(os.fsencode(path), experimental_op_resolver_type=OpResolverType[kernels])
    interpreter.allocate_tensors()
    with contextlib.suppress(RuntimeError, ValueError):  # it may well run on other values
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
        interpreter.invoke()


def _read_model(path: str) -> None:
    with contextlib.suppress(Exception):  # the readers of this process will say it in their own words
        if not zipfile.is_zipfile(path):
            return _read_hdf5(path)
        with zipfile.ZipFile(path) as archive:
            for name in (name for name in archive.namelist() if name.endswith(".h5")):
                with archive.open(name) as file:
                    _read_hdf5(file)


def _read_hdf5(file: str | IO[bytes]) -> None:
    import h5py

    def read(_: str, member: h5py.Group | h5py.Dataset) -> None:
        dict(member.attrs)
        if isinstance(member, h5py.Dataset):
            member[()]

    with h5py.File(file, "r") as content:
        read("/", content)
        content.visititems(read)


def _is_tflite(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(8)[4:] == b"TFL3"


if __name__ == "__main__":
    _run_tflite(*sys.argv[1:]) if _is_tflite(sys.argv[1]) else _read_model(sys.argv[1])
