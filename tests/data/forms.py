"""Data written in several forms, and how they are compared with what was read."""

from __future__ import annotations

import numpy as np

X = np.arange(24, dtype=np.float32).reshape(6, 4)
Y = np.array([0, 1, 2, 0, 1, 2])


def function(folder, body, name="mine.py"):
    """A file with a function that returns data."""
    (folder / name).write_text(f"import numpy as np\nX, Y = np.arange(24.0).reshape(6, 4), np.arange(6) % 3\n{body}\n")
    return f"{folder / name}:load"


def images(folder, values, shape=(4, 5, 3)):
    """PNG files of one colour each, at `folder/name` for the names in `values`."""
    import tensorflow as tf

    for name, value in values.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        tf.io.write_file(str(folder / name), tf.io.encode_png(np.full(shape, value, np.uint8)))


def same(one, other):
    if isinstance(other, dict):
        assert one.keys() == other.keys()
        for name in other:
            same(one[name], other[name])
    else:
        np.testing.assert_array_equal(one, other)
