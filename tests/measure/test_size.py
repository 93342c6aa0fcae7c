import gzip
import os
import subprocess
import sys

import pytest
import zstandard

from edgeprune.measure.size import compressed_size, file_size, gzipped, zstandard_compressed


@pytest.fixture
def file(tmp_path):
    """Nine tenths of it zeros, as in a pruned net."""
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(9_000) + os.urandom(1_000))
    return path


def test_sizes_equal_the_file_and_the_gzip_program(file):
    size = file_size(file)
    program = subprocess.run(["gzip", "-9", "-n", "-c", file], capture_output=True, check=True).stdout
    assert size.bytes == 10_000
    assert abs(size.gzip_bytes - len(program)) <= 0.01 * len(program)
    assert size.to_dict() == {"bytes": 10_000, "gzip_bytes": size.gzip_bytes}
    assert "10,000 bytes" in str(size)


def test_compressed_sizes_are_of_streams_that_give_the_file_back(file):
    content = file.read_bytes()
    size = compressed_size(file)
    assert gzip.decompress(gzipped(content)) == content
    assert zstandard.ZstdDecompressor().decompress(zstandard_compressed(content)) == content
    assert (size.gzip_bytes, size.zstd_bytes) == (len(gzipped(content)), len(zstandard_compressed(content)))
    assert size.bytes == 10_000 and size.gzip_bytes == file_size(file).gzip_bytes
    # Random bytes cannot be made smaller, zeros take next to nothing.
    assert 1_000 < size.zstd_bytes < 1_200 and 1_000 < size.gzip_bytes < 1_200
    assert size.to_dict() == {"bytes": 10_000, "gzip_bytes": size.gzip_bytes, "zstd_bytes": size.zstd_bytes}
    assert str(size) == f"10,000 bytes ({size.gzip_bytes:,} gzip'd, {size.zstd_bytes:,} with zstd)"


def test_an_empty_file_has_a_size(tmp_path):
    (tmp_path / "empty").touch()
    size = compressed_size(tmp_path / "empty")
    assert (
        size.bytes == 0
        and size.gzip_bytes == 20
        and zstandard.ZstdDecompressor().decompress(zstandard_compressed(b"")) == b""
    )


def test_gzip_figure_does_not_depend_on_the_time(file, monkeypatch):
    contents = []
    compress = gzip.compress
    monkeypatch.setattr(gzip, "compress", lambda *a, **k: contents.append(compress(*a, **k)) or contents[-1])
    for second in (0, 1_000_000_000):
        monkeypatch.setattr("time.time", lambda second=second: second)
        file_size(file)
    assert contents[0] == contents[1]


@pytest.mark.parametrize("measure", [file_size, compressed_size])
def test_missing_file_is_named(tmp_path, measure):
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        measure(tmp_path / "nothing.tflite")


def test_without_zstandard_one_line_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"pip install 'edgeprune\[zstd\]'$") as info:
        compressed_size(file)
    assert "\n" not in str(info.value)
    assert file_size(file).bytes == 10_000, "gzip needs no package"
