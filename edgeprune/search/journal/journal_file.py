"""A file that is only appended to, and that a kill at any byte leaves readable: at most the last record is lost.

Each line is a JSON object `{"record": ..., "check": ...}` whose check is the CRC-32 of its record; the first one says
what kind of journal it is. A line without an end is a record that was being written: it is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from edgeprune.types import PathLike


class JournalFile:
    """The records of a journal, for one process at a time.

    Args:
        path: the file; it is made, with its folder, where there is none.
        kind: what the records are, in a word or two; a file of another kind is refused.

    Attributes:
        records: what was read.

    Raises:
        OSError: the file cannot be read or written.
        ValueError: the file is no journal of this kind, a line that was written whole is damaged, or another process
            writes it.
    """

    def __init__(self, path: PathLike, kind: str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._header = header = _line({"edgeprune journal": kind})
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            self._lock()
            text = self.path.read_bytes()
            if header.startswith(text) and len(text) < len(header):  # new, or killed while it was made
                os.truncate(self._descriptor, 0)
                self._write(header)
                text = header
            self.records, end = _records(self.path, text, kind, "choose another name")
            if end < len(text):
                os.truncate(self._descriptor, end)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record, whole before this returns.

        Args:
            record: plain values, for JSON.

        Raises:
            OSError: the file cannot be written; what was begun of the record is taken back.
            ValueError: a number in the record is NaN or infinite.
        """
        self._write(_line(record))
        self.records.append(json.loads(json.dumps(record)))

    def clear(self) -> None:
        """Take all records back.

        Raises:
            OSError: the file cannot be written.
        """
        os.truncate(self._descriptor, len(self._header))
        self.records.clear()

    def close(self) -> None:
        """Leave the file to others."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{self.path} is being written by another run: wait for its end, or choose another name."
            ) from None

    def _write(self, line: bytes) -> None:
        end = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except BaseException:  # a full disk, or Ctrl-C
            os.truncate(self._descriptor, end)
            raise


def read_records(path: PathLike, kind: str, way_out: str) -> list[Any]:
    """The records of a journal, also of one that is being written; the file is not changed.

    Args:
        path: the file.
        kind: what the records are.
        way_out: what to do where the file is no such journal, for the error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no journal of this kind, or a line that was written whole is damaged.
    """
    path = Path(path)
    return _records(path, path.read_bytes(), kind, way_out)[0]


def _records(path: Path, text: bytes, kind: str, way_out: str) -> tuple[list[Any], int]:
    """The records of a journal's whole lines, and where these end."""
    header = _line({"edgeprune journal": kind})
    if not text.startswith(header):
        raise ValueError(f"{path} is no journal of {kind}, {_instead(text, header)}: {way_out}.")
    end = text.rfind(b"\n") + 1
    return [_read(path, number, line) for number, line in enumerate(text[:end].splitlines(), 1)][1:], end


def _instead(text: bytes, header: bytes) -> str:
    """What a file is that does not begin as a journal of some kind does."""
    if header.startswith(text):
        return "its first line was not written to its end" if text else "it is empty"
    try:
        return f"it is one of {json.loads(text.splitlines()[0])['record']['edgeprune journal']}"
    except (ValueError, TypeError, KeyError):
        return "it is another file"


def _read(path: Path, number: int, line: bytes) -> Any:
    try:
        entry = json.loads(line)
        record = entry["record"]
        if entry["check"] == _check(record):
            return record
    except (ValueError, TypeError, KeyError):
        pass
    raise ValueError(f"Line {number} of {path} is damaged: remove the line, or the file to begin again.")


class ClosesFile:
    """A journal for a `with` statement, which closes the file that it is kept in, if there is one."""

    _file: JournalFile | None

    def __enter__(self) -> Self:
        """The journal itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the file to others."""
        if self._file is not None:
            self._file.close()


def _line(record: Mapping[str, Any]) -> bytes:
    return _text({"record": record, "check": _check(record)}) + b"\n"


def _check(record: object) -> str:
    return f"{zlib.crc32(_text(record)):08x}"


def _text(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()
