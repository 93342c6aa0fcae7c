"""How many bytes a file takes: as it lies on the device, and compressed as it travels.

Zeros make a file smaller only when it is compressed (an app store's package, a firmware update), so both
figures are given.
"""

from __future__ import annotations

import gzip
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class FileSize:
    """The size of a file.

    Attributes:
        bytes: the size as it is.
        gzip_bytes: the size after gzip at level 9.
    """

    bytes: int
    gzip_bytes: int

    def __str__(self) -> str:
        """Both figures in one line."""
        return f"{self.bytes:,} bytes ({self.gzip_bytes:,} gzip'd)"

    def to_dict(self) -> dict[str, int]:
        """The two figures as a plain dict, for JSON."""
        return asdict(self)


def file_size(path: str | Path) -> FileSize:
    """Measure a file raw and gzip'd.

    Args:
        path: the file.

    Returns:
        Both sizes in bytes. The same content always gives the same figures (gzip's time stamp is fixed).

    Raises:
        FileNotFoundError: there is no file at `path`.

    Example:
        >>> file_size("model.tflite").gzip_bytes  # doctest: +SKIP
        28514
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}")
    content = path.read_bytes()
    return FileSize(len(content), len(gzip.compress(content, compresslevel=9, mtime=0)))
