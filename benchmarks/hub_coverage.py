"""Which architectures of KerasHub can be cut: `python benchmarks/coverage.py --hub`.

Each net of hub_nets.py is built, its weights made random, and traced. Half of the channels of every group that can be
cut go. Then the steps of `STEPS`, each of which is tried whatever became of the others: the proof; saving, and
loading in a process that has no edgeprune; a training step; the file for LiteRT, run and compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hub_nets import NETS, WORDS, of_fixed_length

from edgeprune import flavor
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.export import export_tflite

LENGTH = 16  # of texts
# What keeps the channels of an input or an output of the model.
EXPECTED = ("output of the model", "input of the model", "it has a single channel")
# Loads models where there is no edgeprune, with keras_hub only for those that Keras alone cannot load.
LOADER = """
import json, sys
sys.modules["edgeprune"] = None
import keras, numpy as np
found = []
for folder in sys.argv[1:]:
    inputs = dict(np.load(folder + "/inputs.npz"))
    needs = "keras"
    try:
        try:
            model = keras.saving.load_model(folder + "/model.keras")
        except Exception:
            import keras_hub
            needs = "keras_hub"
            # It does not register all losses that it compiles with.
            model = keras.saving.load_model(folder + "/model.keras", compile=False)
        given = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs.popitem()[1], training=False))
        expected = np.load(folder + "/outputs.npz")
        pairs = zip(map(np.asarray, given), map(expected.get, expected.files))
        difference = max(float(np.abs(np.subtract(a, b, dtype=float)).max()) for a, b in pairs)
        found.append({"needs": needs, "difference": difference})
    except Exception as error:
        found.append({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"})
print(json.dumps(found))
"""


@dataclass
class Cut:
    """A net, the plan that takes half of every group, and what is left."""

    name: str
    model: Any
    plan: ChannelPlan
    smaller: Any

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """Inputs by their names."""
        return inputs_for(self.name, self.smaller)


def inputs_for(name: str, model: Any, count: int = 2) -> dict[str, np.ndarray]:
    """Random inputs of a net by their names: tokens, masks of ones, positions, images."""
    random = np.random.default_rng(0)
    arrays = {}
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        if "positions" in tensor.name:
            array = np.broadcast_to(np.arange(shape[1]), shape)
        elif tensor.name.endswith("position_ids") and shape[-1] == 2:  # of patches, row by row
            side = round(shape[-2] ** 0.5)
            array = np.broadcast_to(np.stack(np.divmod(np.arange(shape[-2]), side), -1), shape)
        elif "padding" in tensor.name or tensor.name == "box_masks":
            array = np.ones(shape)
        elif "int" in tensor.dtype:
            array = random.integers(0, 2 if "segment" in tensor.name else WORDS, shape)
        else:
            array = random.random(shape)
        arrays[tensor.name] = np.asarray(array, tensor.dtype)
    return arrays


def call(model: Any, inputs: dict[str, np.ndarray]) -> Any:
    """What a model gives for inputs by name."""
    return model(inputs if len(inputs) > 1 else next(iter(inputs.values())), training=False)


def cut_in_half(name: str) -> Cut:
    """Build a net and take half of every group."""
    model = of_fixed_length(NETS[name].build(), LENGTH, NETS[name].shapes)
    random = np.random.default_rng(1)
    for weight in model.weights:
        values = np.asarray(weight)
        if "float" in weight.dtype and values.size and values.min() == values.max():  # zeros or ones prove little
            weight.assign(values + random.uniform(0, 0.1, weight.shape))
    graph = trace(model)
    kept = graph.full_mask()
    for group in graph.groups:
        if group.frozen is None:
            kept[group.classes[1::2]] = False
    plan = ChannelPlan(graph, kept)
    return Cut(name, model, plan, plan.apply(verify=False))


def prove(cut: Cut) -> dict[str, Any]:
    """The proof's difference."""
    from edgeprune.channels.rebuild.proof import prove

    proof = prove(cut.plan.graph, cut.plan.kept_mask, cut.smaller)
    return {"proven": proof.passed, "difference": proof.relative, "calls": proof.calls}


def save_and_load(cut: Cut) -> dict[str, Any]:
    """Whether another process without edgeprune computes the same, and what it needs to load the file."""
    with tempfile.TemporaryDirectory() as folder:
        save(cut, Path(folder))
        (found,) = load_elsewhere([folder])
    return {"loads": loads(found), "needs": found.get("needs")}


def loads(found: dict[str, Any]) -> str:
    """ "yes" for what `load_elsewhere` found; else why not."""
    if "error" in found:
        return found["error"]
    return "yes" if found["difference"] <= 1e-5 else f"differs by {found['difference']:.1e}"


def save(cut: Cut, folder: Path) -> None:
    """A model with inputs and the outputs for them."""
    cut.smaller.save(folder / "model.keras")
    np.savez(folder / "inputs.npz", **cut.inputs)
    outputs = flavor.flatten(call(cut.smaller, cut.inputs), cut.smaller)
    np.savez(folder / "outputs.npz", *map(np.asarray, outputs))


def load_elsewhere(folders: Sequence[str]) -> list[dict[str, Any]]:
    """Load models that `save` wrote, in a process whose path lacks edgeprune."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", LOADER, *folders]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return json.loads(done.stdout.splitlines()[-1])


def train(cut: Cut) -> dict[str, Any]:
    """Whether one training step, on random data with the mean squared error of each output, gives a finite loss."""
    import keras

    # Keras does not forget the metrics that a model was compiled with.
    model = keras.Model(cut.smaller.input, cut.smaller.output)
    inputs = cut.inputs if len(cut.inputs) > 1 else next(iter(cut.inputs.values()))
    outputs = call(model, cut.inputs)
    model.compile("sgd", keras.tree.map_structure(lambda _: "mse", outputs))
    targets = keras.tree.map_structure(lambda output: np.zeros(output.shape, np.float32), outputs)
    loss = float(np.sum(model.train_on_batch(inputs, targets)))
    return {"trains": "yes" if np.isfinite(loss) else "no finite loss"}


def export(cut: Cut) -> dict[str, Any]:
    """The largest error of the file for LiteRT, relative to the output; or why there is none."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = export_tflite(cut.smaller, Path(folder) / "model.tflite", verbose=False)
    verification = result.verification
    if verification is None:
        return {"exports": "written, not run: " + " ".join(result.notes)}
    return {"exports": "yes" if verification.passed else "; ".join(verification.problems)}


STEPS: dict[str, Callable[[Cut], dict[str, Any]]] = {
    "proof": prove,
    "load": save_and_load,
    "train": train,
    "export": export,
}


def cover(name: str) -> dict[str, Any]:
    """Cut one net, and all the steps; the row of the table."""
    cut = cut_in_half(name)
    row = {**figures(cut), "failed": {}}
    for step, work in STEPS.items():
        try:
            row.update(work(cut))
        except Exception as error:  # a row says what went wrong, and the other steps are tried
            row["failed"][step] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    return row


def figures(cut: Cut) -> dict[str, Any]:
    """What the plan does."""
    plan, groups = cut.plan, cut.plan.groups
    most = max(groups, key=lambda group: len(group.layers), default=None)
    residual = "none" if most is None or len(most.layers) < 2 else most.frozen or "yes"
    return {
        "model": cut.name,
        "kind": NETS[cut.name].kind,
        "parameters": plan.params.before,
        "parameters_left": plan.params.after,
        "macs_kept": plan.macs.kept,
        "groups": len(groups),
        "cut": sum(group.frozen is None for group in groups),
        "frozen": {name: reason for name, reason in plan.frozen.items() if not reason.startswith(EXPECTED)},
        "residual": residual,
        "notes": len(plan.graph.notes),
    }


def is_covered(row: dict[str, Any]) -> bool:
    """Whether it was cut, proven, loaded and trained."""
    works = not row.get("error") and row["cut"] and row.get("proven")
    return bool(works and row.get("loads") == "yes" and row.get("trains") == "yes")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, and what is frozen."""
    lines = [
        "| Architecture | Kind | Groups cut | MACs left | Parameters left | Residual width cut | Proof | Loads with | "
        "Trains | TFLite |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- | --- | --- |",
    ]
    for row in rows:
        if row.get("error"):
            lines.append(f"| {row['model']} | {row['kind']} | | | | | | | | {short(row['error'])} |")
            continue
        failed = row["failed"]
        proof = f"{row['difference']:.0e}" if row.get("proven") else failed.get("proof", "NOT equal")
        loaded = row["needs"] if row.get("loads") == "yes" else failed.get("load", row.get("loads"))
        lines.append(
            f"| {row['model']} | {row['kind']} | {row['cut']} of {row['groups']} | {row['macs_kept']:.0%} "
            f"| {row['parameters_left'] / row['parameters']:.0%} | {row['residual']} | {proof} | {loaded} "
            f"| {row.get('trains', failed.get('train'))} | {row.get('exports', failed.get('export'))} |".replace(
                "\n", " "
            )
        )
    frozen = [
        f"- {row['model']}: " + "; ".join(f"`{name}` ({short(reason)})" for name, reason in row["frozen"].items())
        for row in rows
        if row.get("frozen")
    ]
    return "\n".join(
        [*lines, "", counts(rows), "", *(["Kept besides inputs and outputs:", "", *frozen] if frozen else [])]
    )


def short(text: Any) -> str:
    """A cell of the table: the beginning of a long reason, in one line."""
    line = "".join(c for c in " ".join(str(text).split()) if c.isprintable() and c != "|")
    return line if len(line) < 120 else f"{line[:117]}..."


def counts(rows: Sequence[dict[str, Any]]) -> str:
    """How many rows came how far."""
    fine = [row for row in rows if not row.get("error")]
    return (
        f"{len(rows)} architectures: {sum(bool(row['cut']) for row in fine)} planned, "
        f"{sum(bool(row.get('proven')) for row in fine)} proven, "
        f"{sum(row.get('loads') == 'yes' for row in fine)} saved and loaded, "
        f"{sum(row.get('trains') == 'yes' for row in fine)} trained, "
        f"{sum(row.get('exports') == 'yes' for row in fine)} exported and verified; "
        f"{sum(map(is_covered, rows))} all of these but the export."
    )
