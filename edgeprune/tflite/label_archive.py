"""The zip archive of label files behind the model in a .tflite file."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from edgeprune.tflite.flatbuffer_tables import Broken

# A label file is text: what is larger is an attack on the reader.
_MOST_LABEL_BYTES = 1 << 24
# What zipfile raises on archives that are damaged, encrypted or of a kind it does not know.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    struct.error,
    zlib.error,
)


def label_file_names(labels: Sequence[tuple[str, ...] | None]) -> dict[int, str]:
    """The name of the label file of each output that has labels, by the output's number."""
    labelled = [number for number, one in enumerate(labels) if one is not None]
    return {number: f"labels_{number}.txt" if len(labelled) > 1 else "labels.txt" for number in labelled}


def label_archive(names: Mapping[int, str], labels: Sequence[tuple[str, ...] | None], start: int) -> bytes:
    """A zip archive that is to lie at `start` of a file; not compressed, since readers map it into memory."""
    if not names:
        return b""
    file = io.BytesIO()
    with zipfile.ZipFile(cast(Any, _Shifted(file, start)), "w", zipfile.ZIP_STORED) as archive:
        for number, name in names.items():
            # A fixed time: the same labels make the same bytes.
            archive.writestr(zipfile.ZipInfo(name), "\n".join(labels[number] or ()))
    return file.getvalue()


class _Shifted:
    """A file that counts its places from `start`, so that an archive written to it fits behind a model."""

    def __init__(self, file: io.BytesIO, start: int):
        self._file, self._start = file, start

    def tell(self) -> int:
        return self._file.tell() + self._start

    def seek(self, place: int, whence: int = 0) -> int:
        return self._file.seek(place - (self._start if whence == 0 else 0), whence) + self._start

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def archive_start(content: bytes) -> int:
    """Where the archive behind a model begins; the content's end if there is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return max(0, min((info.header_offset for info in archive.infolist()), default=len(content)))
    except _ZIP_ERRORS:
        return len(content)


def read_labels_of(content: bytes, name: str) -> tuple[str, ...]:
    """The lines of a label file in the archive behind a model.

    Raises:
        Broken: there is no such file, or it is damaged or too large.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if archive.getinfo(name).file_size > _MOST_LABEL_BYTES:
                raise Broken(f"its label file {name!r} is too large")
            return tuple(archive.read(name).decode().splitlines())
    except KeyError as error:
        raise Broken(f"its label file {name!r} is not in the archive") from error
    except UnicodeDecodeError as error:
        raise Broken(f"its label file {name!r} is not UTF-8") from error
    except _ZIP_ERRORS as error:
        raise Broken(f"the archive with its label files: {error}") from error
