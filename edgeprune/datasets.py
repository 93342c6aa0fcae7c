"""Data to train and measure on: Fashion-MNIST, a sample inside the package, the full set behind the same call."""

from __future__ import annotations

import gzip
import math
import os
import struct
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Split: TypeAlias = tuple[np.ndarray, np.ndarray]

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
IMAGE_SHAPE = (28, 28)
DATA_VARIABLE = "EDGEPRUNE_DATA"  # the environment variable that names the folder of the full set
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # the Debian package dataset-fashion-mnist
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")
IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}


def load_fashion_mnist(full: bool = False, directory: str | Path | None = None) -> tuple[Split, Split]:
    """Load Fashion-MNIST: 28x28 grey images of ten kinds of clothing.

    Without arguments this is the sample inside the package: 5,000 training and 1,000 test images, every
    class equally often, chosen with a fixed seed. The full set (60,000 and 10,000) is looked for in
    `directory`, in the folder that the environment variable `EDGEPRUNE_DATA` names, where the Debian
    package `dataset-fashion-mnist` puts it, and last through `keras.datasets`, which downloads it.

    Args:
        full: whether to load the full set.
        directory: a folder with the four `*-ubyte.gz` files of the full set; implies `full=True`.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: images of shape `(n, 28, 28)` and labels of shape
        `(n,)` with values 0 to 9 (`CLASS_NAMES`), all `uint8`.

    Raises:
        FileNotFoundError: the full set is nowhere to be found, or `directory` lacks one of its files.
        ValueError: a file is not what its name says.

    Source: https://github.com/zalandoresearch/fashion-mnist (MIT, Zalando SE).

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_fashion_mnist()
        >>> x_train.shape, str(x_train.dtype), x_test.shape
        ((5000, 28, 28), 'uint8', (1000, 28, 28))
    """
    if directory is None and not full:
        return _load_sample()
    directory = directory or os.environ.get(DATA_VARIABLE)
    if directory is None and DEBIAN_FOLDER.is_dir():
        directory = DEBIAN_FOLDER
    return _load_keras() if directory is None else _load_folder(Path(directory))


def _load_sample() -> tuple[Split, Split]:
    import numpy as np

    with (resources.files("edgeprune") / "data" / "fashion_mnist_sample.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as arrays:
            return _checked({name: arrays[name] for name in ARRAY_NAMES}, "the embedded sample")


def _load_folder(folder: Path) -> tuple[Split, Split]:
    missing = [name for name in IDX_NAMES.values() if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}; the full Fashion-MNIST is four files, "
            f"{', '.join(IDX_NAMES.values())}."
        )
    return _checked({name: read_idx(folder / file) for name, file in IDX_NAMES.items()}, str(folder))


def _load_keras() -> tuple[Split, Split]:
    from edgeprune import flavor

    try:
        train, test = flavor.keras_module(flavor.KERAS_3).datasets.fashion_mnist.load_data()
    except Exception as error:  # whatever the network does
        raise FileNotFoundError(
            "The full Fashion-MNIST is not on this machine and could not be downloaded "
            f"({' '.join(str(error).split())[:120]}). Install the Debian package dataset-fashion-mnist, "
            f"or put its four .gz files into a folder and pass it as `directory` or in ${DATA_VARIABLE}."
        ) from error
    return _checked(dict(zip(ARRAY_NAMES, (*train, *test), strict=True)), "keras.datasets.fashion_mnist")


def read_idx(path: str | Path) -> np.ndarray:
    """Read a gzip'd IDX file of bytes, the format of MNIST and its kin.

    Args:
        path: the `.gz` file.

    Returns:
        A `uint8` array with the shape in the file's header.

    Raises:
        ValueError: the file is not gzip, not IDX, holds something other than bytes, or is cut short.

    Source: http://yann.lecun.com/exdb/mnist/ (the IDX file format).
    """
    import numpy as np

    try:
        content = gzip.decompress(Path(path).read_bytes())
    except (gzip.BadGzipFile, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is not a complete gzip file: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of bytes.")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise ValueError(f"{path} is cut short inside its header.")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise ValueError(f"{path} should hold {shape} bytes and holds {len(content) - header}.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _checked(arrays: dict[str, np.ndarray], source: str) -> tuple[Split, Split]:
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != "uint8" or x.shape[1:] != IMAGE_SHAPE or y.dtype != "uint8" or y.shape != x.shape[:1]:
            raise ValueError(
                f"{source}: the {part} part should be uint8 images (n, 28, 28) and labels (n,), "
                f"and is {x.dtype} {x.shape} and {y.dtype} {y.shape}."
            )
        if not len(y) or y.max() >= len(CLASS_NAMES):
            raise ValueError(f"{source}: the {part} labels should be 0 to {len(CLASS_NAMES) - 1}.")
    return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
