"""Malformed inputs of every kind for every command, drawn at random from a seed. Used by robustness.py."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import malformed_sources
import numpy as np

MODELS = ("m.keras", "m.h5", "t.keras", "t.h5")  # of Keras 3 and of tf_keras
NUMBERS = ("nan", "inf", "-inf", "-1", "-0.5", "1e40", "9" * 41, "", " ", "x", "0x10", "1,5", "None")
WHOLE_NUMBERS = (*NUMBERS, "1.5", str(2**31), str(2**63))
WORDS = ("", " ", "nonsense", "x" * 5000, "l2 ", "../x", "ü\u2028")


@dataclass
class Case:
    """One malformed input.

    Attributes:
        kind: what is malformed.
        run: the arguments of the command, or a function of the library that is called in the folder.
        accepted: whether success is right, too: for damage that may meet bytes that mean nothing.
    """

    kind: str
    run: list[str] | Callable[[], Any]
    accepted: bool = False


def cases(generator: random.Random) -> Iterator[Callable[[], Case]]:
    """Functions that put a malformed input into the current folder, of all kinds in turn."""
    while True:
        for kind in _KINDS:
            yield lambda kind=kind: kind(generator)


# Data


def _source(generator: random.Random) -> Case:
    """Data in another form than .npz."""
    form = generator.choice(
        [malformed_sources.table, malformed_sources.array, malformed_sources.images, malformed_sources.function]
    )
    kind, source = form(generator)
    return Case(kind, [source if part == "d.npz" else part for part in _with_data(generator)])


def _custom(generator: random.Random) -> Case:
    kind, module = malformed_sources.custom(generator)
    run = generator.choice([["inspect", "m.keras"], ["convert", "t.keras", "-o", "new.tflite"]])
    return Case(kind, [*run, "--custom", module])


def _old_model(generator: random.Random) -> Case:
    kind, path = malformed_sources.old_model(generator)
    run = generator.choice([["inspect", path], ["convert", path, "-o", "new.tflite"]])
    return Case(kind, run)


def _npz(generator: random.Random) -> Case:
    name, damage = generator.choice(list(_NPZ.items()))
    damage(Path("d.npz"), generator)
    return Case(f"npz: {name}", _with_data(generator), accepted=name in ("flipped bytes", "flipped headers"))


def _with_data(generator: random.Random) -> list[str]:
    """A command that reads d.npz."""
    model = generator.choice(MODELS)
    return generator.choice(
        [
            ["prune", model, "--data", "d.npz", "-o", "new.keras", "--epochs", "1"],
            ["channels", model, "--pruning-ratio", "0.5", "--data", "d.npz", "-o", "new.h5", "--plan", "new.json"],
            ["channels", model, "--pruning-ratio", "0.5", "--data", "d.npz", "--epochs", "1"],
            ["convert", model, "--quantization", "int8", "--data", "d.npz", "-o", "new.tflite"],
            ["convert", model, "--data", "d.npz", "-o", "new.tflite"],
            ["verify", "m.tflite", "--model", "m.keras", "--data", "d.npz"],
            ["bundle", model, "--data", "d.npz", "-o", "new"],
            ["bundle", model, "--data", "d.npz", "-o", "new", "--target", "cortex-m"],
        ]
    )


def _saved(**arrays: Any) -> Callable[[Path, random.Random], None]:
    def save(path: Path, generator: random.Random) -> None:
        with np.load(path) as file:
            x, y = file["x"], file["y"]
        made = {key: value(x, y) for key, value in arrays.items()}
        generator.choice([np.savez, np.savez_compressed])(path, **made)

    return save


def _member(content: Callable[[random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    def write(path: Path, generator: random.Random) -> None:
        with zipfile.ZipFile(path, "w", generator.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
            archive.writestr(generator.choice(["x.npy", "x"]), content(generator))

    return write


def _npy(header: str, body: bytes = bytes(192)) -> Callable[[random.Random], bytes]:
    text = header.encode()
    return lambda generator: b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def _npy_of(descr: str = "'<f4'", shape: str = "(8, 6)", order: str = "False") -> Callable[[random.Random], bytes]:
    return _npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n")


def _field(offset: int, value: int) -> Callable[[Path, random.Random], None]:
    """A field of the first member, in both places where the archive has it."""

    def write(path: Path, generator: random.Random) -> None:
        content = bytearray(path.read_bytes())
        content[offset] = value
        content[content.find(b"PK\x01\x02") + offset + 2] = value
        path.write_bytes(content)

    return write


def _flipped(path: Path, generator: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 8)):
        content[generator.randrange(len(content))] = generator.randrange(256)
    path.write_bytes(content)


def _flipped_headers(path: Path, generator: random.Random) -> None:
    """Damage where headers lie: near the beginning or the end."""
    content = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 4)):
        place = generator.randrange(min(300, len(content)))
        content[generator.choice([place, -place - 1])] = generator.choice(
            [0, 1, 127, 128, 255, generator.randrange(256)]
        )
    path.write_bytes(content)


def _cut(path: Path, generator: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: generator.randrange(path.stat().st_size * 3 // 4)])


def _junk(path: Path, generator: random.Random) -> None:
    path.write_bytes(generator.randbytes(generator.choice([1, 100, 5000])))


def _empty(path: Path, generator: random.Random) -> None:
    path.write_bytes(b"")


def _folder(path: Path, generator: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _missing(path: Path, generator: random.Random) -> None:
    path.unlink()


def _objects(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([{}] * len(x), object)


_NPZ = {
    "cut off": _cut,
    "junk": _junk,
    "empty file": _empty,
    "a folder": _folder,
    "missing": _missing,
    "flipped bytes": _flipped,
    "flipped headers": _flipped_headers,
    "encrypted": _field(6, 1),
    "unknown method": _field(8, 99),
    "method bzip2": _field(8, 12),
    "no array": _member(lambda generator: generator.randbytes(64)),
    "declares 120 GB": _member(_npy_of(shape="(5000000000, 6)")),
    "declares less": _member(_npy_of(shape="(4, 6)")),
    "negative shape": _member(_npy_of(shape="(-8, 6)")),
    "shape of many": _member(_npy_of(shape=str((1,) * 80))),
    "open header": _member(_npy("(" * 200)),
    "no dict": _member(_npy("[]\n")),
    "unknown type": _member(_npy_of(descr="'<q9'")),
    "structured": _member(_npy_of(descr="[('a', '<f4')]")),
    "complex": _saved(x=lambda x, y: x * 1j, y=lambda x, y: y),
    "text": _saved(x=lambda x, y: x.astype(str), y=lambda x, y: y),
    "objects": _saved(x=_objects, y=lambda x, y: y),
    "dates": _saved(x=lambda x, y: x.astype("M8[s]"), y=lambda x, y: y),
    "NaN": _saved(x=lambda x, y: np.where(x > 0.9, np.nan, x), y=lambda x, y: y),
    "infinite": _saved(x=lambda x, y: np.where(x > 0.9, np.inf, x), y=lambda x, y: y),
    "no samples": _saved(x=lambda x, y: x[:0], y=lambda x, y: y[:0]),
    "no dimension": _saved(x=lambda x, y: x[0, 0]),
    "one dimension": _saved(x=lambda x, y: x[:, 0], y=lambda x, y: y),
    "too wide": _saved(x=lambda x, y: np.repeat(x, 2, axis=1), y=lambda x, y: y),
    "more dimensions": _saved(x=lambda x, y: x[..., None, None], y=lambda x, y: y),
    "no x": _saved(X=lambda x, y: x, y=lambda x, y: y),
    "only labels": _saved(y=lambda x, y: y),
    "fewer labels": _saved(x=lambda x, y: x, y=lambda x, y: y[1:]),
    "two names": _saved(x=lambda x, y: x, x_train=lambda x, y: x, y=lambda x, y: y),
    "y_test alone": _saved(x=lambda x, y: x, y_test=lambda x, y: y),
    "complex labels": _saved(x=lambda x, y: x, y=lambda x, y: y * 1j),
    "labels of text": _saved(x=lambda x, y: x, y=lambda x, y: y.astype(str)),
    "labels NaN": _saved(x=lambda x, y: x, y=lambda x, y: np.where(y, np.nan, 0.0)),
}


def _labels(generator: random.Random) -> Case:
    """Numbers that are no labels of a net with three classes, for commands that use labels."""
    name, change = generator.choice(list(_LABELS.items()))
    _saved(x=lambda x, y: x, y=change)(Path("d.npz"), generator)
    model = generator.choice(MODELS)
    run = generator.choice(
        [
            ["prune", model, "--data", "d.npz", "-o", "new.keras", "--epochs", "1"],
            ["channels", model, "--pruning-ratio", "0.5", "--data", "d.npz", "-o", "new.h5", "--epochs", "1"],
            ["channels", model, "--pruning-ratio", "0.5", "--data", "d.npz", "-o", "new.h5", "--importance", "taylor"],
            ["verify", "m.tflite", "--model", "m.keras", "--data", "d.npz"],
            ["bundle", model, "--data", "d.npz", "-o", "new"],
        ]
    )
    return Case(f"labels: {name}", run)


_LABELS = {
    "negative": lambda x, y: y - 1,
    "too large": lambda x, y: y + 1,
    "much too large": lambda x, y: y + 2**40,
    "fractions": lambda x, y: y + 0.5,
    "two columns": lambda x, y: np.stack([y, y], axis=-1),
    "four dimensions": lambda x, y: y.reshape(-1, 1, 1, 1) + np.zeros((1, 2, 2, 2)),
}


# Models and files


def _model(generator: random.Random) -> Case:
    path = Path(generator.choice(MODELS))
    name, damage = generator.choice(list(_MODEL.items()))
    if name in _CONFIGS and path.suffix != ".keras":
        name, damage = "cut off", _cut
    damage(path, generator)
    run = generator.choice(
        [
            ["inspect", str(path)],
            ["prune", str(path), "--data", "d.npz", "-o", "new.h5", "--epochs", "1"],
            ["channels", str(path), "--pruning-ratio", "0.5", "-o", "new.keras"],
            ["convert", str(path), "-o", "new.tflite"],
            ["bundle", str(path), "--data", "d.npz", "-o", "new"],
            ["verify", "m.tflite", "--model", str(path), "--data", "d.npz"],
        ]
    )
    return Case(f"model: {name}", run, accepted=name in ("flipped bytes", "flipped headers", *_CONFIGS))


def _changed_config(change: Callable[[Any, random.Random], Any]) -> Callable[[Path, random.Random], None]:
    """A .keras file with another config.json."""

    def write(path: Path, generator: random.Random) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        changed = change(json.loads(members["config.json"]), generator)
        members["config.json"] = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return write


def _another_value(config: Any, generator: random.Random) -> Any:
    """The config with one of its values, somewhere, replaced."""
    places = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(config)
    node, key = generator.choice(places)
    node[key] = generator.choice([None, -1, 0, 10**12, 1e40, "x", "", [], {}, [1, [2]], True, float("nan")])
    return config


_CONFIGS = {
    "another value": _changed_config(_another_value),
    "no config": _changed_config(lambda config, generator: b""),
    "config cut off": _changed_config(
        lambda config, generator: json.dumps(config).encode()[: generator.randrange(900)]
    ),
    "config of another kind": _changed_config(lambda config, generator: generator.choice([[], {}, 1, "x", None])),
    "deep config": _changed_config(lambda config, generator: b"[" * 100_000 + b"]" * 100_000),
}
_MODEL = {
    "cut off": _cut,
    "junk": _junk,
    "empty file": _empty,
    "missing": _missing,
    "a folder": _folder,
    "flipped bytes": _flipped,
    "flipped headers": _flipped_headers,
    **_CONFIGS,
}


def _tflite(generator: random.Random) -> Case:
    path = Path(generator.choice(["m.tflite", "q.tflite"]))
    damages = {"cut off": _cut, "junk": _junk, "empty file": _empty, "missing": _missing, "a folder": _folder}
    damages |= {"flipped bytes": _flipped, "flipped words": _flipped_words}
    name, damage = generator.choice(list(damages.items()))
    damage(path, generator)
    run = generator.choice(
        [
            ["inspect", str(path)],
            ["verify", str(path)],
            ["verify", str(path), "--model", "m.keras", "--data", "d.npz"],
            ["benchmark", str(path), "--num-runs", "2"],
            ["benchmark", "m.tflite", str(path), "--num-runs", "2", "--no-xnnpack"],
        ]
    )
    return Case(f"tflite: {name}", run, accepted=name.startswith("flipped"))


def _flipped_words(path: Path, generator: random.Random) -> None:
    """Other offsets and sizes in a flatbuffer, which keeps its identifier."""
    content = bytearray(path.read_bytes())
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(0, len(content) - 4, 4)
        value = generator.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0, generator.randrange(2**32)])
        content[place : place + 4] = value.to_bytes(4, "little")
    content[4:8] = b"TFL3"
    path.write_bytes(content)


def _text(generator: random.Random) -> Case:
    """A file of labels that is none."""
    name, content = generator.choice(
        [
            ("not UTF-8", b"gr\xf6\xdfe\na\nb\n"),
            ("too few", b"a\nb\n"),
            ("too many", b"a\nb\nc\nd\n"),
            ("empty lines", b"a\n\nc\n"),
            ("empty", b""),
            ("binary", bytes(range(256))),
        ]
    )
    Path("labels.txt").write_bytes(content)
    target = generator.choice(["phone", "cortex-m"])
    return Case(
        f"labels.txt: {name}",
        ["bundle", "m.keras", "--data", "d.npz", "--labels", "labels.txt", "-o", "new", "--target", target],
    )


# Options and paths

_COMMANDS: dict[str, list[str]] = {
    "prune": ["prune", "m.keras", "--data", "d.npz", "-o", "new.keras", "--epochs", "1"],
    "channels": [
        "channels",
        "m.keras",
        "--pruning-ratio",
        "0.5",
        "--data",
        "d.npz",
        "-o",
        "new.keras",
        "--epochs",
        "1",
    ],
    "convert": ["convert", "m.keras", "-o", "new.tflite"],
    "verify": ["verify", "m.tflite", "--model", "m.keras", "--data", "d.npz"],
    "benchmark": ["benchmark", "m.tflite", "--num-runs", "2"],
    "bundle": ["bundle", "m.keras", "--data", "d.npz", "-o", "new"],
    "demo": ["demo", "-o", "new", "--epochs", "1"],
    "inspect": ["inspect", "m.keras"],
    "targets": ["targets"],
}
_OPTIONS: list[tuple[str, str, Sequence[str]]] = [
    ("prune", "--sparsity", (*NUMBERS, "1", "1.5")),
    *(("prune", option, (*WHOLE_NUMBERS, "0")) for option in ("--epochs", "--frequency", "--batch-size")),
    ("prune", "--learning-rate", (*NUMBERS, "0", "1e38")),
    ("prune", "--schedule", WORDS),
    ("prune", "--loss", (*WORDS, "Loss", "mean")),
    ("prune", "--layers", WORDS),
    *(
        ("channels", option, (*NUMBERS, "1.5", "1e-9"))
        for option in ("--target-macs", "--target-params", "--pruning-ratio")
    ),
    ("channels", "--round-to", (*WHOLE_NUMBERS, "0", "1000")),
    ("channels", "--importance", WORDS),
    ("channels", "--scope", WORDS),
    ("channels", "--ignore", WORDS),
    ("channels", "--epochs", WHOLE_NUMBERS),
    ("channels", "--batch-size", (*WHOLE_NUMBERS, "0")),
    ("channels", "--learning-rate", (*NUMBERS, "0", "1e38")),
    ("channels", "--loss", WORDS),
    ("convert", "--quantization", (*WORDS, "int4", "int8", "int16x8")),
    ("verify", "--num-threads", (*WHOLE_NUMBERS, "0", "100000")),
    *(("benchmark", option, WHOLE_NUMBERS) for option in ("--num-runs", "--warmup-runs", "--num-threads")),
    ("bundle", "--target", WORDS),
    ("bundle", "--quantization", (*WORDS, "int4")),
    ("bundle", "--mean", [number for number in NUMBERS if number not in ("-1", "-0.5")]),
    ("bundle", "--std", (*NUMBERS, "0")),
    ("bundle", "--name", ("", " ")),
    ("demo", "--flavor", WORDS),
    ("demo", "--sparsity", (*NUMBERS, "1")),
    ("demo", "--epochs", (*WHOLE_NUMBERS, "0")),
    ("demo", "--seed", WHOLE_NUMBERS),
    *((command, "--nonsense", ("",)) for command in _COMMANDS),
]


def _option(generator: random.Random) -> Case:
    command, option, values = generator.choice(_OPTIONS)
    arguments = list(_COMMANDS[command])
    if option in ("--target-macs", "--target-params"):
        place = arguments.index("--pruning-ratio")
        del arguments[place : place + 2]
    return Case(f"option: {command} {option}", [*arguments, option, generator.choice(values)])


def _path(generator: random.Random) -> Case:
    command = generator.choice(["prune", "channels", "convert", "bundle", "demo"])
    ending = {"prune": ".keras", "channels": ".h5", "convert": ".tflite"}.get(command, "")
    os.symlink(f"loop{ending}", f"loop{ending}")
    os.symlink(f"gone{ending}/x", f"link{ending}")
    Path(f"taken{ending}").write_text("taken")
    Path(f"folder{ending}").mkdir()
    Path(f"folder{ending}", "mine.txt").write_text("mine")
    paths = [
        "/",
        "//",
        "/.",
        ".",
        "..",
        "",
        f"d.npz/new{ending}",
        f"d.npz/a/b{ending}",
        f"loop{ending}",
        f"link{ending}",
    ]
    paths += ["x" * 256 + ending, "x" * 260 + f"/new{ending}", f"new/{'y' * 300}{ending}", f"folder{ending}"]
    paths += ["new.onnx", "new"] if ending else []
    paths += [f"taken{ending}", f"/proc/new{ending}", f"/dev/null/new{ending}", f"/dev/null{ending and '/x'}{ending}"]
    force = generator.choice([[], ["--overwrite"]])
    chosen = generator.choice([path for path in paths if not (force and path == "taken" + ending and ending)])
    if command == "demo" and chosen in ("/", "//", "/.", ".", "..", "", "folder"):
        chosen = "d.npz"  # the demo may write into any folder
    arguments = [*_COMMANDS[command], "-o", chosen, *force]
    return Case(f"path: {command} {chosen[:40]}", arguments)


# The library


def _library(generator: random.Random) -> Case:
    """Files that the library reads and no command does: plans and metadata."""
    if generator.random() < 0.5:
        text = Path("p.json").read_text()
        changed = generator.choice([_another_value, lambda plan, _: generator.choice([[], 1, None, "x", {}])])
        plan = json.dumps(changed(json.loads(text), generator))
        plan = generator.choice([plan, plan[: generator.randrange(len(plan))], "[" * 50_000])
        return Case("plan", lambda: _read_plan(plan), accepted=True)
    path = Path("bundled.tflite")
    generator.choice([_flipped, _flipped_words, _flipped_headers, _cut])(path, generator)
    return Case("metadata", lambda: _read_metadata(path), accepted=True)


def _read_plan(text: str) -> None:
    import edgeprune as ep
    from edgeprune import flavor

    plan = ep.ChannelPlan.from_json(flavor.load_model("m.keras"), text)
    print(plan)
    plan.apply()


def _read_metadata(path: Path) -> None:
    import edgeprune as ep

    print(ep.read_metadata(path))


def arrays() -> bytes:
    """The content of a data file that fits the nets: 48 samples of 6 numbers, three classes."""
    x = np.random.default_rng(0).random((48, 6), dtype=np.float32)
    file = io.BytesIO()
    np.savez(file, x=x, y=np.arange(48) % 3)
    return file.getvalue()


_KINDS = (_npz, _npz, _source, _source, _custom, _old_model, _labels, _model, _model, _tflite, _text)
_KINDS += (_option, _option, _path, _library)
KINDS = len(_KINDS)
