"""Malformed tables, arrays, images, functions and modules of the user's own, and files of old Keras versions.

Used by malformed.py. Each function puts one into the current folder, and returns what is malformed and the path.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np

_HEADER = "a,b,c,d,e,f,y\n"
_ROW = "0.1,0.2,0.3,0.4,0.5,0.6,1\n"
_TABLES = {
    "empty file": b"",
    "header alone": _HEADER.encode(),
    "no header": (_ROW * 8).encode(),
    "not UTF-8": _HEADER.encode() + b"\xff\xfe" * 9,
    "NUL bytes": _HEADER.encode() + bytes(64),
    "ragged rows": (_HEADER + _ROW + "1,2\n").encode(),
    "more columns": (_HEADER + _ROW.replace("\n", ",7\n")).encode(),
    "words": (_HEADER + _ROW.replace("0.1", "red")).encode(),
    "NaN": (_HEADER + _ROW.replace("0.1", "nan")).encode(),
    "infinite": (_HEADER + _ROW.replace("0.1", "1e999")).encode(),
    "gaps": (_HEADER + _ROW.replace("0.1", "")).encode(),
    "two columns of a name": (_HEADER.replace("b", "a") + _ROW * 8).encode(),
    "fewer columns": b"a,y\n1,0\n",
    "labels too large": (_HEADER + _ROW.replace(",1\n", ",9\n")).encode(),
    "open quote": (_HEADER + '"' + _ROW * 3).encode(),
    "a long field": (_HEADER + "1" * 200_000 + ",1,1,1,1,1,1\n").encode(),
    "one line of 1 MB": b"a" * 1_000_000,
    "rows of semicolons": (_HEADER + _ROW.replace(",", ";")).encode(),
}


def table(generator: random.Random) -> tuple[str, str]:
    """A .csv file."""
    name, content = generator.choice(list(_TABLES.items()))
    Path("d.csv").write_bytes(content)
    return f"csv: {name}", "d.csv"


_ARRAYS = {
    "scalar": np.float32(1),
    "one dimension": np.ones(6, "f4"),
    "too wide": np.ones((8, 7), "f4"),
    "no samples": np.ones((0, 6), "f4"),
    "complex": np.ones((8, 6), "c8"),
    "text": np.full((8, 6), "a"),
    "objects": np.full((8, 6), None),
    "NaN": np.full((8, 6), np.nan, "f4"),
    "structured": np.zeros(8, [("a", "f4")]),
}


def array(generator: random.Random) -> tuple[str, str]:
    """A .npy file."""
    if generator.random() < 0.3:
        Path("d.npy").write_bytes(generator.randbytes(generator.choice([0, 6, 100])))
        return "npy: junk", "d.npy"
    name, values = generator.choice(list(_ARRAYS.items()))
    np.save("d.npy", values, allow_pickle=True)
    return f"npy: {name}", "d.npy"


def images(generator: random.Random) -> tuple[str, str]:
    """A folder of images, for nets that take none."""
    name = generator.choice(["empty folder", "empty classes", "junk", "cut off", "text", "a link to itself"])
    folder = Path("images")
    (folder / "cats").mkdir(parents=True)
    (folder / "dogs").mkdir()
    if name == "empty folder":
        (folder / "cats").rmdir()
        (folder / "dogs").rmdir()
    elif name == "a link to itself":
        (folder / "cats" / "a.png").symlink_to("a.png")
    elif name != "empty classes":
        content = {"junk": generator.randbytes(99), "cut off": b"\x89PNG\r\n\x1a\n", "text": b"cat"}[name]
        (folder / "cats" / generator.choice(["a.png", "a.jpg", "a.gif", "a.txt"])).write_bytes(content)
    return f"images: {name}", str(folder)


_FUNCTIONS = {
    "raises": "def data():\n    raise RuntimeError('no\\ndata')",
    "raises nothing to say": "def data():\n    raise ValueError",
    "returns None": "def data():\n    return None",
    "returns a string": "def data():\n    return 'x'",
    "returns objects": "def data():\n    return [object()]",
    "returns no samples": "import numpy as np\ndef data():\n    return np.ones((0, 6))",
    "returns NaN": "import numpy as np\ndef data():\n    return np.full((8, 6), np.nan)",
    "returns another shape": "import numpy as np\ndef data():\n    return np.ones((8, 5))",
    "returns five": "import numpy as np\ndef data():\n    return (np.ones((8, 6)),) * 5",
    "returns other names": "def data():\n    return {'z': [1]}",
    "takes arguments": "def data(x):\n    return x",
    "generator that raises": "def data():\n    yield 1 / 0",
    "empty generator": "def data():\n    yield from ()",
    "no function": "data = 3",
    "no such name": "x = 1",
    "syntax error": "def data(:",
    "exits": "import sys\nsys.exit(3)",
    "raises on import": "raise RuntimeError('broken')",
}


def function(generator: random.Random) -> tuple[str, str]:
    """A function of the user's own that returns data."""
    name, source = generator.choice(list(_FUNCTIONS.items()))
    Path("own_data.py").write_text(source)
    return f"function: {name}", generator.choice(
        ["own_data.py:data", "own_data.py:", "own_data.py", "nowhere:data", ":"]
    )


_MODULES = {
    "syntax error": "class :",
    "raises": "raise ValueError('a\\nb')",
    "exits": "raise SystemExit(3)",
    "interrupts": "raise KeyboardInterrupt",
    "not UTF-8": None,
    "imports nothing there": "import nothing_there",
    "no such class": "x = 1",
}


def custom(generator: random.Random) -> tuple[str, str]:
    """A module for --custom."""
    name, source = generator.choice(list(_MODULES.items()))
    Path("own.py").write_bytes(b"x = '\xff'" if source is None else source.encode())
    written = "own.py:Missing" if name == "no such class" else "own.py"
    return f"custom: {name}", generator.choice([written, written, "nowhere.py", "nowhere", "", ":", "own.py:", "/"])


_OLD = {
    "no layers": {"class_name": "Sequential", "config": []},
    "config of another kind": {"class_name": "Sequential", "config": 3},
    "no config": {"class_name": "Sequential"},
    "a list": [1],
    "layer without config": {"class_name": "Sequential", "config": [{"class_name": "Dense"}]},
    "layer of another kind": {"class_name": "Sequential", "config": [7]},
    "unknown layer": {"class_name": "Sequential", "config": [{"class_name": "Nothing", "config": {"name": "a"}}]},
    "no shape": {
        "class_name": "Sequential",
        "config": [{"class_name": "Dense", "config": {"name": "a", "output_dim": 2}}],
    },
    "maxout without weights": {
        "class_name": "Sequential",
        "config": [{"class_name": "MaxoutDense", "config": {"name": "a", "output_dim": 2}}],
    },
    "merge of nothing": {"class_name": "Sequential", "config": [{"class_name": "Merge", "config": {"name": "a"}}]},
    "negative width": {
        "class_name": "Sequential",
        "config": [
            {
                "class_name": "Dense",
                "config": {"name": "a", "output_dim": -2, "batch_input_shape": [None, 6], "bias": True},
            }
        ],
    },
    "no graph": {"class_name": "Model", "config": {"name": "m", "layers": [], "input_layers": [["x", 0, 0]]}},
}


def old_model(generator: random.Random) -> tuple[str, str]:
    """An .h5 file of Keras 1 or 2."""
    import h5py

    name, configuration = generator.choice(list(_OLD.items()))
    with h5py.File("old.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(configuration)
        file.attrs["keras_version"] = generator.choice(["1.2.2", "2.0.8", "2.12.0", "1", "2.x"])
        if generator.random() < 0.8:
            weights = file.create_group("model_weights")
            weights.attrs["layer_names"] = [b"a"]
            group = weights.create_group("a")
            group.attrs["weight_names"] = generator.choice([[], [b"w"]])
            if len(group.attrs["weight_names"]):
                group.create_dataset("w", data=np.ones(generator.choice([(), (3,), (6, 2), (2, 6, 2)]), "f4"))
    return f"old h5: {name}", "old.h5"
