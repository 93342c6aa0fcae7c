"""How long planning and removing half of the channels takes, beside Torch-Pruning on the same architectures.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch torchvision torch-pruning
    python benchmarks/channel_speed.py --torch /tmp/torch/bin/python [--only DenseNet201] [--rounds 3]
    python benchmarks/channel_speed.py --candidates [--only MobileNetV2]
    python benchmarks/channel_speed.py --clone [--only MobileNetV2]

Both sides build the architecture without pretrained weights and take half of the channels of every group by their l2
norm; building the net is not counted. Torch-Pruning builds its dependency graph with one forward pass and prunes in
place; edgeprune traces, plans and rebuilds a second model, and the proof is timed apart. Each measurement has a process
of its own that first prunes a tiny net, so that no import is counted. The sides take turns; the table shows medians.
Without --torch only this package is measured. --candidates measures, in seconds of CPU time, what a search pays for
one more plan of a model that is traced already: choosing the channels, and evaluating the smaller model without
building it beyond the forward pass itself (goal together: 0.1 s for MobileNetV2, 0.3 s for ResNet50). --clone measures,
in seconds of CPU time too, what Keras takes for a model of the same layers at full width, without its weights:
`keras.models.clone_model`. Results go to benchmarks/out/channel_speed.json too. Goal: at least twice as fast
everywhere, ten times on DenseNet-201.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

OUT = Path(__file__).parent / "out" / "channel_speed.json"
# Keras's name, torchvision's name, side of the images.
MODELS = (
    ("MobileNetV2", "mobilenet_v2", 224),
    ("VGG16", "vgg16", 224),
    ("ResNet50", "resnet50", 224),
    ("ResNet152", "resnet152", 224),
    ("InceptionV3", "inception_v3", 299),
    ("DenseNet201", "densenet201", 224),
    ("ConvNeXtTiny", "convnext_tiny", 224),
    ("EfficientNetB7", "efficientnet_b7", 600),
)
GOALS = {"DenseNet201": 10.0}
GOAL = 2.0


def edgeprune_times(name: str) -> dict[str, float]:
    """Seconds for each stage, and the peak of memory over that of the built model, in multiples of its weights."""
    import keras

    from edgeprune.channels.plan.planning import plan_channels
    from edgeprune.channels.rebuild.proof import prove
    from edgeprune.channels.rebuild.slicing import rebuild

    layers = keras.layers
    tiny = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(8, 3), layers.Flatten(), layers.Dense(2)])
    plan = plan_channels(tiny, pruning_ratio=0.5, importance="l2", scope="local")
    rebuild(plan.graph, plan.kept_mask)

    model = getattr(keras.applications, name)(weights=None)
    weights = 4 * model.count_params()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    plan = plan_channels(model, pruning_ratio=0.5, importance="l2", scope="local")
    planned = time.perf_counter()
    smaller = rebuild(plan.graph, plan.kept_mask)
    applied = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    proof = prove(plan.graph, plan.kept_mask, smaller)
    return {
        "plan": planned - start,
        "apply": applied - planned,
        "verify": time.perf_counter() - applied,
        "difference": proof.relative,
        "peak_over_weights": peak / weights,
    }


CANDIDATE_GOALS = {"MobileNetV2": 0.1, "ResNet50": 0.3}


def candidate_times(name: str, side: int) -> dict[str, float]:
    """Seconds of CPU time for each part of evaluating one more plan, the least of three, and for what is done once."""
    import keras
    import numpy as np

    from edgeprune.channels.graph.trace import trace
    from edgeprune.channels.plan.planning import plan_graph
    from edgeprune.search.trial.candidates import Candidates

    graph = trace(getattr(keras.applications, name)(weights=None))
    images = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype(np.float32)
    start = time.process_time()
    candidates = Candidates(graph, images)
    candidates.outputs(graph.full_mask())
    once = time.process_time() - start
    found = []
    for kept in (0.7, 0.6, 0.5):
        start = time.process_time()
        mask = plan_graph(graph, ("target_macs", kept)).kept_mask
        planned = time.process_time()
        candidates.outputs(mask)
        evaluated = time.process_time()
        candidates.outputs(mask)  # no weight changes: the forward pass alone
        forward = time.process_time() - evaluated
        found.append({"plan": planned - start, "evaluate": evaluated - planned - forward, "forward": forward})
    return {**{key: min(one[key] for one in found) for key in found[0]}, "once": once}


def clone_times(name: str) -> dict[str, float]:
    """Seconds of CPU time of the stages and of a copy by Keras, the least of three."""
    import keras

    from edgeprune.channels.plan.planning import plan_channels
    from edgeprune.channels.rebuild.proof import prove
    from edgeprune.channels.rebuild.slicing import rebuild

    model = getattr(keras.applications, name)(weights=None)
    found = []
    for _ in range(3):
        times = [time.process_time()]
        plan = plan_channels(model, pruning_ratio=0.5, importance="l2", scope="local")
        times.append(time.process_time())
        smaller = rebuild(plan.graph, plan.kept_mask)
        times.append(time.process_time())
        prove(plan.graph, plan.kept_mask, smaller)
        times.append(time.process_time())
        keras.models.clone_model(model)
        times.append(time.process_time())
        found.append([end - start for start, end in itertools.pairwise(times)])
    return dict(zip(("plan", "rebuild", "proof", "clone"), map(min, zip(*found, strict=True)), strict=True))


def print_clones(only: str | None) -> None:
    print("| Model | Plan s | Rebuild s | Proof s | keras.models.clone_model s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in (model[0] for model in MODELS if only in (None, model[0])):
        found = run([sys.executable, __file__, "--one", name, "--clone"])
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in found.values())} |", flush=True)


def print_candidates(only: str | None) -> None:
    print("| Model | Plan s | Evaluate s, beyond the forward pass | Forward pass s | Once a model s | Goal |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for name, _, _ in (model for model in MODELS if model[0] == only or (only is None and model[0] in CANDIDATE_GOALS)):
        found = run([sys.executable, __file__, "--one", name, "--candidates"])
        goal = CANDIDATE_GOALS.get(name)
        reached = "met" if goal and found["plan"] + found["evaluate"] <= goal else "missed"
        cells = (f"{found[key]:.3f}" for key in ("plan", "evaluate", "forward", "once"))
        print(f"| {name} | {' | '.join(cells)} | {f'{goal:g} s {reached}' if goal else ''} |", flush=True)


TORCH_PRUNING = """
import json, sys, time
import torch, torchvision
import torch_pruning as tp

name, side = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(2)


def pruner_of(model, example):
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    importance = tp.importance.MagnitudeImportance(p=2)
    return tp.pruner.MagnitudePruner(model, example, importance=importance, pruning_ratio=0.5, ignored_layers=[last])


tiny = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 2))
pruner_of(tiny, torch.randn(1, 3, 8, 8)).step()
model = getattr(torchvision.models, name)(weights=None).eval()
example = torch.randn(1, 3, side, side)
start = time.perf_counter()
pruner = pruner_of(model, example)
planned = time.perf_counter()
pruner.step()
print(json.dumps({"plan": planned - start, "apply": time.perf_counter() - planned}))
"""


def run(command: list[str]) -> dict[str, float]:
    """The figures that a process prints on its last line.

    Raises:
        RuntimeError: the process failed.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, torch_name: str, side: int, torch_python: str | None, rounds: int) -> dict[str, Any]:
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(run([sys.executable, __file__, "--one", name]))
        if torch_python:
            theirs.append(run([torch_python, "-c", TORCH_PRUNING, torch_name, str(side)]))
    row: dict[str, Any] = {"model": name, "rounds": rounds}
    for side_name, results in (("edgeprune", ours), ("torch_pruning", theirs)):
        if results:
            row[side_name] = {key: statistics.median(result[key] for result in results) for key in results[0]}
            totals = [result["plan"] + result["apply"] for result in results]
            row[side_name]["total"] = statistics.median(totals)
            row[side_name]["spread"] = max(totals) - min(totals)
    return row


def print_table(rows: list[dict[str, Any]]) -> None:
    print("| Model | Plan s | Apply s | Verify s | Peak / weights | Torch-Pruning: graph s | step s | Faster | Goal |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for row in rows:
        ours, theirs = row["edgeprune"], row.get("torch_pruning")
        cells = ["", "", "", ""]
        if theirs:
            faster, goal = theirs["total"] / ours["total"], GOALS.get(row["model"], GOAL)
            met = f"{goal:g}x {'met' if faster >= goal else 'missed'}"
            cells = [f"{theirs['plan']:.2f}", f"{theirs['apply']:.2f}", f"{faster:.1f}x", met]
        print(
            f"| {row['model']} | {ours['plan']:.2f} | {ours['apply']:.2f} | {ours['verify']:.2f} "
            f"| {ours['peak_over_weights']:.1f} | {' | '.join(cells)} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", metavar="PYTHON", help="the Python of an environment with torch-pruning")
    parser.add_argument("--only", choices=[name for name, _, _ in MODELS], help="one architecture alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("--candidates", action="store_true", help="what one more plan costs a search")
    parser.add_argument("--clone", action="store_true", help="beside what Keras takes for a copy")
    arguments = parser.parse_args()
    if arguments.clone:
        if arguments.one:
            print(json.dumps(clone_times(arguments.one)))
        else:
            print_clones(arguments.only)
        return
    if arguments.candidates:
        if arguments.one:
            (side,) = [side for name, _, side in MODELS if name == arguments.one]
            print(json.dumps(candidate_times(arguments.one, side)))
        else:
            print_candidates(arguments.only)
        return
    if arguments.one:
        print(json.dumps(edgeprune_times(arguments.one)))
        return

    from edgeprune.progress import track

    wanted = [model for model in MODELS if arguments.only in (None, model[0])]
    rows = [measure(*model, arguments.torch, arguments.rounds) for model in track(wanted, "Architectures")]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=1))
    print_table(rows)


if __name__ == "__main__":
    main()
