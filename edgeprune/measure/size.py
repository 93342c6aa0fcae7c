"""How many bytes a file has: as it lies on the device, and compressed as it travels.

Zeros make a file smaller only when it is compressed (an app store's package, a firmware update), so both
figures are given.
"""

from __future__ import annotations

import gzip
from dataclasses import asdict, dataclass
from pathlib import Path

# Both at their slowest: a file is compressed once and sent many times. zstd has more levels, which need more memory
# on the device.
GZIP_LEVEL = 9
ZSTD_LEVEL = 19


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
        Both sizes in bytes. The same content always has the same figures (gzip's time stamp is fixed).

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `path` is neither text nor a path.

    Example:
        >>> size = file_size("model.tflite")
        >>> size.gzip_bytes < size.bytes == Path("model.tflite").stat().st_size
        True
    """
    content = _content(path)
    return FileSize(len(content), len(gzipped(content)))


@dataclass(frozen=True)
class CompressedSize:
    """The size of a file as it travels.

    Attributes:
        bytes: the size as it is, which is also what a package pays that stores the file uncompressed so that it can
            be mapped into memory.
        gzip_bytes: the size after gzip at level 9, within a few bytes that of DEFLATE in an APK or a zip.
        zstd_bytes: the size after Zstandard at level 19, as updates over the air are packed.
    """

    bytes: int
    gzip_bytes: int
    zstd_bytes: int

    def __str__(self) -> str:
        """The figures in one line."""
        return f"{self.bytes:,} bytes ({self.gzip_bytes:,} gzip'd, {self.zstd_bytes:,} with zstd)"

    def to_dict(self) -> dict[str, int]:
        """The figures as a plain dict, for JSON."""
        return asdict(self)


def compressed_size(path: str | Path) -> CompressedSize:
    """Measure what a file costs to send: in an app's package (gzip) and in an update over the air (zstd).

    Args:
        path: the file.

    Returns:
        The sizes in bytes. The same content always has the same figures.

    Raises:
        FileNotFoundError: there is no file at `path`.
        TypeError: `path` is neither text nor a path.
        ImportError: the package `zstandard` is not installed.

    Source: https://www.rfc-editor.org/rfc/rfc8878 (Zstandard), https://www.rfc-editor.org/rfc/rfc1952 (gzip)

    Example:
        >>> _ = Path("zeros.bin").write_bytes(bytes(10_000))
        >>> size = compressed_size("zeros.bin")
        >>> size.bytes, size.gzip_bytes < 100, size.zstd_bytes < 100
        (10000, True, True)
    """
    content = _content(path)
    return CompressedSize(len(content), len(gzipped(content)), len(zstandard_compressed(content)))


def gzipped(content: bytes) -> bytes:
    """The content after gzip, without a time stamp."""
    return gzip.compress(content, compresslevel=GZIP_LEVEL, mtime=0)


def zstandard_compressed(content: bytes) -> bytes:
    """The content after Zstandard.

    Raises:
        ImportError: the package `zstandard` is not installed.
    """
    try:
        import zstandard
    except ImportError as error:
        raise ImportError("The size after zstd is measured with zstandard: pip install 'edgeprune[zstd]'") from error
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content)


def _content(path: str | Path) -> bytes:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file at {path}")
    return path.read_bytes()
