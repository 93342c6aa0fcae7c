"""Malformed inputs and kills: what the command line answers, and what is left of the files.

    python benchmarks/robustness.py --inputs 200 --kills 20 --seed 1

Each input is drawn at random (malformed.py) and given to a command in a process of its own, forked from this one
after TensorFlow was imported. Right is: exit code 2 and one line on stderr, no file changed, none left behind. Each
kill ends a command or a writer at a random moment; right is: every file is still there, whole, and a second run leaves
nothing behind. Linux only. The last line counts what was wrong; the exit code is 1 if anything was.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import os
import random
import re
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import malformed

LIMIT_SECONDS = 300
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FAULTS = ("traceback", "died", "hung", "not one line", "lost", "left over", "accepted")


@dataclass
class Ended:
    """How a process ended: its exit code (negative: the signal), its output, and whether it had to be stopped."""

    code: int
    out: str
    errors: str
    hung: bool = False


def main() -> None:
    """Run, print each fault as it is found, and count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run only the input of this number")
    arguments = parser.parse_args()
    _import_everything()
    faults = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        fixtures = Path(folder) / "fixtures"
        fixtures.mkdir()
        _succeed(_forked(_make_fixtures, fixtures))
        numbers = range(arguments.inputs) if arguments.only is None else [arguments.only]
        for number in numbers:
            generator = random.Random(f"{arguments.seed} {number}")
            faults.update(_try_input(number, generator, fixtures, Path(folder) / "input"))
        for number in range(arguments.kills):
            generator = random.Random(f"{arguments.seed} kill {number}")
            kill = _kill_writer if number % 2 else _kill_command
            faults.update(kill(number, generator, fixtures, Path(folder) / "kill"))
    counts = ", ".join(f"{faults[fault]} {fault}" for fault in FAULTS)
    print(f"{len(numbers)} malformed inputs, {arguments.kills} kills, seed {arguments.seed}: {counts}")
    sys.exit(1 if faults else 0)


# Malformed inputs


def _try_input(number: int, generator: random.Random, fixtures: Path, folder: Path) -> list[str]:
    shutil.copytree(fixtures, folder)
    try:
        with contextlib.chdir(folder):
            makers = malformed.cases(generator)
            for _ in range(number % malformed.KINDS + 1):
                make = next(makers)
            case = make()
        before = _hashes(folder)
        ended = _forked(_command(case.run), folder)
        after = _hashes(folder)
        faults = list(_wrong_ends(case, ended))
        if any(after.get(name) != content for name, content in before.items()):
            faults.append("lost")
        if ended.code and after.keys() - before.keys():
            faults.append("left over")
        for fault in faults:
            last = (ended.errors.strip().splitlines() or [""])[-1]
            print(f"input {number}: {fault}: {case.kind}: {case.run}: exit {ended.code}: {last[:300]}", flush=True)
        return faults
    finally:
        shutil.rmtree(folder)


def _wrong_ends(case: malformed.Case, ended: Ended) -> Iterator[str]:
    if ended.hung:
        yield "hung"
    elif ended.code < 0:
        yield "died"
    elif "Traceback" in ended.errors:
        yield "traceback"
    elif ended.code == 0 and not case.accepted:
        yield "accepted"
    elif ended.code == 2 and isinstance(case.run, list) and not _is_one_line(ended.errors):
        yield "not one line"


def _is_one_line(errors: str) -> bool:
    # On a busy machine a stage that took its time is a line, too.
    lines = [line for line in errors.splitlines() if not re.fullmatch(r".+ \.\.\. \d+ s", line)]
    return len(lines) == 1 and lines[0].startswith("error: ")


# Kills


def _kill_command(number: int, generator: random.Random, fixtures: Path, folder: Path) -> list[str]:
    """Kill a command that replaces what an earlier run wrote, beside files of the user's own; then run it again."""
    outputs = {
        "prune": ["prune", "m.keras", "--data", "d.npz", "-o", "out/p.keras", "--epochs", "3"],
        "channels": ["channels", "m.h5", "--pruning-ratio", "0.5", "-o", "out/c.keras", "--plan", "out/c.json"],
        "convert": ["convert", "m.keras", "-o", "out/m.tflite", "--quantization", "int8", "--data", "d.npz"],
        "bundle": ["bundle", "m.keras", "-o", "out/bundle", "--data", "d.npz"],
    }
    name, run = generator.choice(list(outputs.items()))
    shutil.copytree(fixtures, folder)
    try:
        (folder / "out").mkdir()
        start = time.monotonic()
        _succeed(_forked(_command(run), folder))
        seconds = time.monotonic() - start
        mine = folder / ("out/bundle/mine.txt" if name == "bundle" else "out/mine.txt")
        mine.write_text("mine")
        first = _hashes(folder)
        ended = _forked(
            _command([*run, "--overwrite"]),
            folder,
            kill=(generator.choice(SIGNALS), generator.uniform(0, 1.1 * seconds)),
        )
        return _judge(f"kill {number}: {name}", folder, first, ended, _command([*run, "--overwrite"]))
    finally:
        shutil.rmtree(folder)


def _kill_writer(number: int, generator: random.Random, fixtures: Path, folder: Path) -> list[str]:
    """Kill a process that does nothing but write, over and over."""
    shutil.copytree(fixtures, folder)
    try:
        _succeed(_forked(lambda: _write(1), folder))
        (folder / "folder" / "mine.txt").write_text("mine")
        first = _hashes(folder)
        kill = (generator.choice(SIGNALS), generator.uniform(0, 0.2))
        ended = _forked(lambda: _write(1000), folder, kill=kill)
        return _judge(f"kill {number}: writer", folder, first, ended, lambda: _write(1))
    finally:
        shutil.rmtree(folder)


def _write(times: int) -> None:
    from edgeprune.atomic import atomic_folder, atomic_path, atomic_paths
    from edgeprune.cli.signals import exit_on_signals

    with exit_on_signals():
        for number in range(times):
            text = f"{number}\n" * 1000
            with atomic_path("one") as one:
                one.write_text(text)
            with atomic_paths("a", "b", "c") as several:
                for path in several:
                    path.write_text(text)
            with atomic_folder("folder", replaces=lambda old: {"x", "y"}) as new:
                for name in ("x", "y"):
                    (new / name).write_text(text)


def _judge(what: str, folder: Path, first: dict[str, str], ended: Ended, again: Callable[[], Any]) -> list[str]:
    """What was wrong after a kill and after a second run."""
    faults = []
    killed = _hashes(folder)
    faults += ["lost"] if first.keys() - killed.keys() else []
    polite = ended.code in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    faults += ["left over"] if polite and killed.keys() - first.keys() else []
    faults += ["traceback"] if "Traceback" in ended.errors else []
    faults += ["not one line"] if polite and not _is_one_line(ended.errors) else []
    second = _forked(again, folder)
    after = _hashes(folder)
    faults += ["traceback"] if second.code else []
    faults += ["left over"] if after.keys() != first.keys() else []
    same = [name for name in first if Path(name).name == "mine.txt" or name in ("m.keras", "m.h5", "d.npz")]
    faults += ["lost"] if any(after.get(name) != first[name] for name in same) else []
    for fault in faults:
        print(f"{what}: {fault}: exit {ended.code}, then {second.code}: {ended.errors[-200:]} {second.errors[-200:]}")
        print("  ", sorted(killed.keys() ^ first.keys()), sorted(after.keys() ^ first.keys()), flush=True)
    return faults


# Processes


def _import_everything() -> None:
    """Import what the commands import, and compute nothing: a process with TensorFlow's threads must not be forked."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import keras  # noqa: F401
    import tensorflow  # noqa: F401
    import tf_keras  # noqa: F401

    from edgeprune.flavor.files import import_tfmot

    import_tfmot()


def _make_fixtures() -> None:
    """Nets of both Kerases, data, files and a plan that belong together."""
    import keras
    import tf_keras

    Path("d.npz").write_bytes(malformed.arrays())
    for module, name in ((keras, "m"), (tf_keras, "t")):
        module.utils.set_random_seed(0)
        model = module.Sequential(
            [
                module.Input((6,), name="features"),
                module.layers.Dense(16, activation="relu", name="hidden"),
                module.layers.Dense(3, activation="softmax", name="classes"),
            ],
            name="tiny",
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        model.save(f"{name}.keras")
        model.save(f"{name}.h5")
    for run in (
        ["convert", "m.keras", "-o", "m.tflite"],
        ["convert", "m.keras", "-o", "q.tflite", "--quantization", "int8", "--data", "d.npz"],
        ["channels", "m.keras", "--pruning-ratio", "0.5", "--plan", "p.json"],
        ["bundle", "m.keras", "--data", "d.npz", "-o", "bundle"],
    ):
        with contextlib.suppress(SystemExit):
            _command(run)()
    shutil.move("bundle/model.tflite", "bundled.tflite")
    shutil.rmtree("bundle")


def _command(run: list[str] | Callable[[], Any]) -> Callable[[], Any]:
    """What a process does with the arguments of the command, or with a function of the library."""
    if callable(run):
        return lambda: _one_line(run)

    def command() -> None:
        from edgeprune import cli

        sys.argv = ["edgeprune", *run]
        cli.main()

    return command


def _one_line(function: Callable[[], Any]) -> None:
    """Call the library; an error that its docstrings name is what the command line would print."""
    try:
        function()
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _forked(function: Callable[[], Any], folder: Path, kill: tuple[int, float] | None = None) -> Ended:
    """Call a function in a process of its own and in a folder.

    Args:
        function: what to call.
        folder: where.
        kill: a signal, and after how many seconds it is sent.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = os.fork()
        if process == 0:
            os._exit(_call(function, folder, out.fileno(), errors.fileno()))
        handle = os.pidfd_open(process)
        hung = False
        if kill is not None and not select.select([handle], [], [], kill[1])[0]:
            os.kill(process, kill[0])
        if not select.select([handle], [], [], LIMIT_SECONDS)[0]:
            hung = True
            os.kill(process, signal.SIGKILL)
        os.close(handle)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        texts = []
        for file in (out, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ended(code, *texts, hung)


def _call(function: Callable[[], Any], folder: Path, out: int, errors: int) -> int:
    os.chdir(folder)
    os.dup2(out, 1)
    os.dup2(errors, 2)
    try:
        function()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _succeed(ended: Ended) -> None:
    if ended.code:
        sys.exit(f"What had to succeed ended with {ended.code}:\n{ended.errors}")


def _hashes(folder: Path) -> dict[str, str]:
    """Every file, folder and link below a folder, and what it holds."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            content = os.readlink(path)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = content
    return found


if __name__ == "__main__":
    main()
