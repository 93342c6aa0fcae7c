"""Which models can be cut: every model of `keras.applications` and of `tf_keras.applications`, or KerasHub's.

    python benchmarks/coverage.py [--only 'ResNet*'] [--flavor keras] [--again]
    python benchmarks/coverage.py --hub [--only '*BERT*'] [--again]

Each model is built without pretrained weights and traced. Half of the channels of every group that can be cut go, the
rebuilt model is compared with the original whose dropped channels are silenced, saved, loaded and trained for one step.
A model counts as covered when every group but those of its inputs and outputs lost channels, nothing was unknown, the
comparison holds to 1e-4, the step gives a finite loss, and the loaded model gives what the saved one gave (or this
Keras cannot load the original either, which the table then says). Every model has a process of its own; rows are added
to benchmarks/out/coverage.json as they come, and those that are there are not made again. `--hub` does the same with
small configurations of KerasHub's architectures (hub_nets.py, hub_coverage.py); its table is in hub_coverage.md too.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

OUT = Path(__file__).parent / "out" / "coverage.json"
HUB_OUT = OUT.with_name("hub_coverage.json")
TIME_LIMIT = 1800  # seconds for one model
# What keeps the channels of an input or an output of the model.
EXPECTED = ("output of the model", "input of the model")


def builders(flavor: str) -> dict[str, Any]:
    """The functions that build the models of one Keras, by name."""
    from edgeprune import flavor as flavors

    applications = flavors.keras_module(flavor).applications
    return {
        name: build
        for name, build in sorted(vars(applications).items())
        if callable(build) and name[0].isupper() and not isinstance(build, type)
    }


def cover(flavor: str, name: str) -> dict[str, Any]:
    """Trace, cut, compare, save, load and train one model; the figures of it."""
    import numpy as np

    from edgeprune.channels.graph.trace import trace
    from edgeprune.channels.rebuild.proof import prove
    from edgeprune.channels.rebuild.slicing import rebuild

    model = builders(flavor)[name](weights=None)
    trace_seconds = seconds(lambda: trace(model), best_of=3)
    graph = trace(model)
    free = [group for group in graph.groups if group.frozen is None]
    kept = graph.full_mask()
    for group in free:
        kept[group.classes[: group.size // 2]] = False
    start = time.perf_counter()
    smaller = rebuild(graph, kept)
    rebuild_seconds = time.perf_counter() - start
    start = time.perf_counter()
    proof = prove(graph, kept, smaller)
    verify_seconds = time.perf_counter() - start
    other_reasons = {name: reason for name, reason in graph.frozen.items() if not reason.startswith(EXPECTED)}
    return {
        "flavor": flavor,
        "model": name,
        "parameters": model.count_params(),
        "parameters_left": smaller.count_params(),
        "macs_kept": graph.remaining_macs(kept) / graph.macs,
        "groups": len(graph.groups),
        "cut": len(free),
        "frozen": other_reasons,
        "notes": len(graph.notes),
        "difference": proof.relative,
        "loads": saves_and_loads(smaller, model, np),
        "trains": trains(smaller, np),  # last, as a step can take the weights of a very deep net out of bounds
        "trace_seconds": trace_seconds,
        "rebuild_seconds": rebuild_seconds,
        "verify_seconds": verify_seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def seconds(work: Any, best_of: int) -> float:
    """The shortest of several runs: what the work itself takes."""
    times = []
    for _ in range(best_of):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def images_for(model: Any, count: int, np: Any) -> Any:
    """Random images for a model; those of any size are taken at 224x224."""
    return np.random.default_rng(0).random((count, *(side or 224 for side in model.input_shape[1:])), np.float32)


def trains(model: Any, np: Any) -> bool:
    """Whether one training step gives a finite loss.

    On two images: with a single one the kernel that TensorFlow 2.21 takes on processors with AVX-512 for the weights'
    gradient of a 1x1 convolution with stride 2 and 9 to 15 input channels writes past its memory (oneDNN's; the plain
    operation does so too), which ends the process for a halved RegNetX002 or RegNetY002.
    """
    model.compile("sgd", "sparse_categorical_crossentropy")
    return bool(np.isfinite(model.train_on_batch(images_for(model, 2, np), np.zeros(2))))


def saves_and_loads(model: Any, original: Any, np: Any) -> str:
    """ "yes" where the model comes back from its file and computes the same; else why not."""
    from edgeprune import flavor

    images = images_for(model, 1, np)
    try:
        loaded = through_a_file(model)
    except Exception as error:  # whatever Keras raises
        try:
            through_a_file(original)
        except Exception:  # the same for the model as it was: no fault of the cut, and told as such
            return f"{flavor.flavor_of(model)} cannot load the original either"
        return f"{type(error).__name__}: {error}"[:200]
    difference = np.abs(np.asarray(loaded(images)) - np.asarray(model(images))).max()
    return "yes" if difference <= 1e-5 else f"differs by {difference:.1e}"


def through_a_file(model: Any) -> Any:
    """The model as it comes back from its file."""
    from edgeprune import flavor

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return flavor.keras_of(model).models.load_model(path)


def is_covered(row: dict[str, Any]) -> bool:
    """Whether everything that the docstring above asks for holds."""
    whole = not row.get("error") and not row["frozen"]
    loads = whole and (row["loads"] == "yes" or row["loads"].endswith("the original either"))
    return bool(loads and row["difference"] <= 1e-4 and row["trains"])


def in_a_process_of_its_own(flavor: str, name: str) -> dict[str, Any]:
    """The row of one model; that of a model whose process fails or takes too long has an error."""
    command = [sys.executable, __file__, "--one", flavor, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return {"flavor": flavor, "model": name, "error": f"not done after {TIME_LIMIT} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"flavor": flavor, "model": name, "error": last[:300]}
    return json.loads(done.stdout.splitlines()[-1])


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| Keras | Model | Groups cut | MACs kept | Difference | Trace s | Rebuild s | Verify s | Covered |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for row in rows:
        if row.get("error"):
            print(f"| {row['flavor']} | {row['model']} | | | | | | | no: {row['error']} |")
            continue
        why = f": {row['frozen']}" if row["frozen"] else "" if row["loads"] == "yes" else f"; {row['loads']}"
        why += "" if row["trains"] else "; no finite loss"
        print(
            f"| {row['flavor']} | {row['model']} | {row['cut']} of {row['groups']} | {row['macs_kept']:.1%} "
            f"| {row['difference']:.1e} | {row['trace_seconds']:.3f} | {row['rebuild_seconds']:.2f} "
            f"| {row['verify_seconds']:.2f} | {'yes' if is_covered(row) else 'no'}{why} |"
        )
    covered = sum(map(is_covered, rows))
    slowest = max((row["trace_seconds"] for row in rows if not row.get("error")), default=0.0)
    print(f"\n{covered} of {len(rows)} covered; the slowest trace took {slowest:.3f} s (goal: 0.2)")


def cover_one_of_hub(name: str) -> dict[str, Any]:
    """The row of one of KerasHub's architectures."""
    from hub_coverage import cover

    return cover(name)


def cover_hub(pattern: str, again: bool) -> None:
    """Make the rows of KerasHub's architectures whose names match, each in a process of its own, and print all."""
    from hub_coverage import table
    from hub_nets import NETS
    from results import Results

    from edgeprune.progress import track

    results = Results(HUB_OUT)
    for name in track([name for name in NETS if fnmatch.fnmatchcase(name, pattern)], "Architectures"):
        known = results.get(model=name)
        if again or known is None or known.get("error"):
            results.remove(model=name)
            results.add(**{"kind": NETS[name].kind, **in_a_process_of_its_own("hub", name)})
    rows = sorted(results.rows, key=lambda row: list(NETS).index(row["model"]))
    HUB_OUT.with_suffix(".md").write_text(table(rows) + "\n")
    print(table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="a pattern of model names")
    parser.add_argument("--hub", action="store_true", help="small configurations of KerasHub's architectures")
    parser.add_argument("--flavor", choices=("keras", "tf_keras"), help="one Keras alone")
    parser.add_argument("--again", action="store_true", help="also make rows that are there")
    parser.add_argument("--one", nargs=2, metavar=("FLAVOR", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        flavor, name = arguments.one
        print(json.dumps(cover_one_of_hub(name) if flavor == "hub" else cover(flavor, name)))
        return
    if arguments.hub:
        cover_hub(arguments.only, arguments.again)
        return

    from edgeprune.progress import track

    rows = json.loads(OUT.read_text()) if OUT.exists() else []
    flavors = [arguments.flavor] if arguments.flavor else ["keras", "tf_keras"]
    wanted = [(f, n) for f in flavors for n in builders(f) if fnmatch.fnmatchcase(n, arguments.only)]
    done = {(row["flavor"], row["model"]) for row in rows if not (arguments.again or row.get("error"))}
    OUT.parent.mkdir(exist_ok=True)
    for flavor, name in track([one for one in wanted if one not in done], "Models"):
        rows = [row for row in rows if (row["flavor"], row["model"]) != (flavor, name)]
        rows.append(in_a_process_of_its_own(flavor, name))
        OUT.write_text(json.dumps(rows, indent=1))
    print_table(sorted((row for row in rows if (row["flavor"], row["model"]) in wanted), key=lambda r: r["model"]))


if __name__ == "__main__":
    main()
