"""What reconstruction costs on a large net: seconds and memory, beside one forward pass over the same images.

    python benchmarks/reconstruction_cost.py [--model ResNet50] [--images 256] [--importance l2 reconstruction]

Half of the channels of each group of a net with random weights are removed, and what reads them is solved on random
images of 224 x 224 pixels. Each row has a process of its own. `solves` is what NumPy's linear algebra takes; `plan` is
making the plan, with what the importance measures on the images; memory is the peak of the process, with Keras and the
model. Goal for ResNet50 and 256 images on two cores: under 5 minutes and 4 GB, and at most 3 forward passes beside the
solves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from edgeprune.text_table import text_table

SIDE = 224
BATCH = 32
SOLVERS = ("cholesky", "eigh", "inv", "solve")


class Clock:
    """Seconds of the wall and of CPU time that parts of the work took."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        own = self.seconds.setdefault(name, [0.0, 0.0])
        own[0] += time.perf_counter() - wall
        own[1] += time.process_time() - cpu

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return call


def measure(name: str, images: int, importance: str | None) -> dict[str, Any]:
    """The seconds of each part and the peak of memory; of the forward pass alone without an importance."""
    import keras

    import edgeprune as ep

    model = getattr(keras.applications, name)(weights=None)
    x = np.random.default_rng(0).normal(size=(images, SIDE, SIDE, 3)).astype(np.float32)
    model(x[:1], training=False)
    clock = Clock()
    if importance is None:
        with clock.part("forward"):
            for start in range(0, images, BATCH):
                model(x[start : start + BATCH], training=False)
    else:
        data = {} if importance == "l2" else {"data": x}
        with clock.part("plan"):
            plan = ep.plan_channels(model, pruning_ratio=0.5, importance=importance, scope="local", **data)
        for solver in SOLVERS:
            setattr(np.linalg, solver, clock.timed(getattr(np.linalg, solver), "solves"))
        with clock.part("reconstruct"):
            found = plan.reconstruct(x, verify=False, batch_size=BATCH)
        print(f"error at the output {found.before:.1%} -> {found.after:.1%}", file=sys.stderr)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": clock.seconds, "memory": memory}


def measured_apart(name: str, images: int, importance: str | None) -> dict[str, Any]:
    """What `measure` returns in a new process.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, __file__, "--model", name, "--images", str(images), "--one", importance or "forward"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ResNet50", help="a net of keras.applications for images of 224 pixels")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--importance", nargs="+", default=["l2", "reconstruction"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        importance = None if arguments.one == "forward" else arguments.one
        print(json.dumps(measure(arguments.model, arguments.images, importance)))
        return
    rows = []
    for importance in (None, *arguments.importance):
        found = measured_apart(arguments.model, arguments.images, importance)
        parts = [found["seconds"].get(part) for part in ("forward", "plan", "reconstruct", "solves")]
        cells = ("" if part is None else f"{part[0]:.0f} ({part[1]:.0f})" for part in parts)
        rows.append((importance or "", *cells, f"{found['memory'] / 1e9:.2f}"))
    print(f"{arguments.model}, {arguments.images} images: seconds (of CPU time)")
    print(text_table(("importance", "forward pass", "plan", "reconstruct", "of it solves", "memory GB"), rows))


if __name__ == "__main__":
    main()
