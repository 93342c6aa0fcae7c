import gzip
import os
import subprocess

import pytest

from edgeprune.measure.size import file_size


def test_sizes_equal_the_file_and_the_gzip_program(tmp_path):
    file = tmp_path / "model.tflite"
    file.write_bytes(bytes(9_000) + os.urandom(1_000))
    size = file_size(file)
    program = subprocess.run(["gzip", "-9", "-n", "-c", file], capture_output=True, check=True).stdout
    assert size.bytes == 10_000
    assert abs(size.gzip_bytes - len(program)) <= 0.01 * len(program)
    assert size.to_dict() == {"bytes": 10_000, "gzip_bytes": size.gzip_bytes}
    assert "10,000 bytes" in str(size)


def test_gzip_figure_does_not_depend_on_the_time(tmp_path, monkeypatch):
    file = tmp_path / "model.tflite"
    file.write_bytes(b"weights" * 100)
    contents = []
    compress = gzip.compress
    monkeypatch.setattr(gzip, "compress", lambda *a, **k: contents.append(compress(*a, **k)) or contents[-1])
    for second in (0, 1_000_000_000):
        monkeypatch.setattr("time.time", lambda second=second: second)
        file_size(file)
    assert contents[0] == contents[1]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        file_size(tmp_path / "nothing.tflite")
