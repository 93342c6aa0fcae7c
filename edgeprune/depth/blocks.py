"""Whole residual blocks removed: the branch that returns to its own addition is removed, the shortcut kept.

    plan = plan_blocks(model, data=(x, y), num_blocks=2)
    print(plan)
    shallower = plan.apply()

A block is scored by what its removal does to the output on data, or to the loss where there are labels and a loss.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.constant_channels import built_in_kind
from edgeprune.channels.plan.data_importance import Losses
from edgeprune.data.batches import Batch, batches_of
from edgeprune.data.labels import check_labels, check_sample_weights
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import as_tensors, input_tensors
from edgeprune.depth.bypass import called, graphs, rebuilt_without, same_kind, walkable
from edgeprune.depth.identity import identities
from edgeprune.measure.macs import count_macs
from edgeprune.number_checks import check_target, check_whole
from edgeprune.progress import status, track
from edgeprune.text_table import text_table
from edgeprune.types import DataLike, Loss, Model


@dataclass(frozen=True, eq=False)
class Block:
    """A residual block: an addition, one input of which the others are computed from.

    Attributes:
        name: the path name of the addition.
        layers: the path names of the layers that are removed with the block.
        macs: their multiply-accumulates for one sample.
        node: the addition in the model's graph.
        shortcut: which of its inputs is kept.
    """

    name: str
    layers: tuple[str, ...]
    macs: int
    node: Any
    shortcut: int


@dataclass(frozen=True)
class ScoredBlock:
    """A block in a plan.

    Attributes:
        name: the path name of its addition.
        layers: the path names of the layers that are removed with it.
        macs: their multiply-accumulates for one sample.
        score: what its removal alone does; NaN for a block that is ignored.
        removed: its place in the order of removal, counted from 1; None where it is kept.
        score_when_removed: the score of the model without this block and those removed before it; None if kept.
    """

    name: str
    layers: tuple[str, ...]
    macs: int
    score: float
    removed: int | None = None
    score_when_removed: float | None = None


@dataclass(frozen=True, eq=False)
class BlockPlan:
    """Which blocks of a model are removed. `plan_blocks` returns one; the model is not changed.

    Attributes:
        model: the model.
        walked: the model whose graph has the blocks: `model`, or a Functional stand-in of a subclassed one.
        blocks: all its blocks, in their order, with their scores.
        measure: what the scores are: `"change of the output"`, relative to its norm, or `"increase of the loss"`.
        macs_before: the model's multiply-accumulates for one sample.
        macs_after: those that are left.
        removed: the removed blocks, in the order of their removal.
    """

    model: Model
    walked: Any
    blocks: tuple[ScoredBlock, ...]
    measure: str
    macs_before: int
    macs_after: int
    removed: tuple[Block, ...]

    def __str__(self) -> str:
        """A table: a line for each block."""
        heading = (
            f"{len(self.removed)} of {len(self.blocks)} blocks of {self.model.name} are removed, MACs "
            f"{self.macs_before:,} -> {self.macs_after:,} ({self.macs_after / max(self.macs_before, 1):.1%})"
        )
        rows = [
            (
                block.name,
                str(len(block.layers)),
                f"{block.macs:,}",
                f"{block.score:.4g}",
                "" if block.removed is None else f"{block.removed}. ({block.score_when_removed:.4g})",
            )
            for block in self.blocks
        ]
        header = ("block", "layers", "MACs", self.measure, "removed")
        return "\n".join([heading, text_table(header, rows, left=(0, 4))])

    def apply(self, verify: bool = True) -> Model:
        """Build the model without the blocks, and without layers that do nothing.

        Args:
            verify: compare it with the original whose branches are multiplied by zero, on random inputs.

        Returns:
            A plain Functional model with the same names and weights, compiled as the original is.

        Raises:
            ValueError: the model cannot be run on random inputs.
            RuntimeError: the outputs differ by more than rounding.
        """
        with status(f"Removing blocks of {self.model.name}"):
            instead = {**identities(self.walked), **_passing(self.removed)}
            shallower = rebuilt_without(self.walked, self.model, instead)
            if verify:
                _compare(self.walked, self.removed, shallower)
        return shallower


class BlockSettings(TypedDict, total=False):
    """The arguments of `plan_blocks` after the model, for functions that hand them on."""

    num_blocks: int | None
    target_macs: float | None
    data: DataLike | None
    ignore: str | Iterable[str]
    loss: Loss | None
    batch_size: int
    steps: int | None


def remove_blocks(model: Model, *, verify: bool = True, **settings: Unpack[BlockSettings]) -> Model:
    """Remove the residual blocks that matter least: `plan_blocks(model, **settings).apply(verify)`.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        verify: prove the result on random inputs.
        **settings: as `plan_blocks` accepts them.

    Returns:
        A plain Functional model with the same names and weights.

    Raises:
        TypeError: it is no Keras model.
        ValueError: as `plan_blocks`.
        RuntimeError: the proof failed.

    Example:
        >>> inputs = keras.Input((4,), name="inputs")
        >>> joined = layers.Add(name="join")([inputs, layers.Dense(4, name="branch")(inputs)])
        >>> residual = keras.Model(inputs, layers.Dense(2, name="head")(joined))
        >>> [layer.name for layer in remove_blocks(residual, num_blocks=1, data=np.ones((8, 4))).layers]
        ['inputs', 'head']
    """
    return plan_blocks(model, **settings).apply(verify)


def plan_blocks(
    model: Model,
    *,
    num_blocks: int | None = None,
    target_macs: float | None = None,
    data: DataLike | None = None,
    ignore: str | Iterable[str] = (),
    loss: Loss | None = None,
    batch_size: int = 32,
    steps: int | None = None,
) -> BlockPlan:
    """Choose the residual blocks to remove: one after the other, each time the one whose removal does least.

    Args:
        model: a built Functional or Sequential model of `keras` 3 or `tf_keras`. It is not changed.
        num_blocks: how many blocks to remove.
        target_macs: remove blocks until at most this fraction of the MACs is left, above 0 to 1.
        data: what the blocks are scored on: inputs, `(x, y)` or batches of them. A few hundred samples do.
        ignore: names or patterns of blocks, or of layers in them, that are kept.
        loss: a Keras loss or its name, for labelled data; left out, the compiled one, and where there is none the
            change of the output counts.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.

    Returns:
        The plan with all scores.

    Raises:
        TypeError: it is no Keras model, or an argument is of the wrong type.
        ValueError: it has no residual blocks, not exactly one of `num_blocks` and `target_macs` is passed, a number
            is out of its range, the data are missing, do not fit or produce NaN, a name in `ignore` matches nothing, or
            the target cannot be reached.

    Example:
        >>> inputs = keras.Input((4,), name="inputs")
        >>> joined = layers.Add(name="join")([inputs, layers.Dense(4, name="branch")(inputs)])
        >>> plan = plan_blocks(keras.Model(inputs, layers.Dense(2)(joined)), num_blocks=1, data=np.ones((8, 4)))
        >>> [(block.name, block.layers, block.macs) for block in plan.blocks]  # 4 x 4 products in the branch
        [('join', ('branch', 'join'), 16)]
    """
    if (num_blocks is None) == (target_macs is None):
        raise ValueError(
            f"Pass exactly one of num_blocks= and target_macs=; got num_blocks={num_blocks} and "
            f"target_macs={target_macs}."
        )
    if num_blocks is not None:
        check_whole("num_blocks", num_blocks, 1)
    else:
        check_target("target_macs", target_macs)
    if data is None:
        raise ValueError("Blocks are scored on data: pass data=x, data=(x, y) or a dataset of batches.")
    walked = walkable(model)
    whole = _Macs(model, walked)
    blocks = _blocks(walked, whole)
    if not blocks:
        raise ValueError(
            f"Model {model.name!r} has no residual blocks: no addition of a tensor and of what is computed from it."
        )
    left = [block for block in blocks if not _ignored(blocks, ignore, block)]
    scorer = _Scorer(walked, blocks, list(batches_of(data, batch_size, steps, inputs=input_shapes(walked))), loss)
    first: dict[str, float] = {}
    removed: list[Block] = []
    scores_when_removed: list[float] = []
    while (
        len(removed) < (num_blocks or 0) if target_macs is None else whole.without(removed) > target_macs * whole.total
    ):
        candidates = [block for block in left if _is_called(walked, block, removed)]
        if not candidates:
            raise ValueError(
                f"Only {len(removed)} of the blocks of {model.name!r} can be removed"
                + (
                    "."
                    if target_macs is None
                    else f", and {whole.without(removed) / whole.total:.3f} of its MACs are left."
                )
            )
        scores = {}
        for block in track(candidates, f"Scoring {len(candidates)} blocks"):
            scores[block.name] = scorer.score([*removed, block])
        first = first or scores
        best = min(candidates, key=lambda block: scores[block.name])
        removed.append(best)
        scores_when_removed.append(scores[best.name])
    order = {block.name: place for place, block in enumerate(removed)}
    return BlockPlan(
        model,
        walked,
        tuple(
            ScoredBlock(
                block.name,
                block.layers,
                block.macs,
                first.get(block.name, math.nan),
                order[block.name] + 1 if block.name in order else None,
                scores_when_removed[order[block.name]] if block.name in order else None,
            )
            for block in blocks
        ),
        scorer.measure,
        whole.total,
        whole.without(removed),
        tuple(removed),
    )


def find_blocks(model: Model) -> tuple[Block, ...]:
    """Find the residual blocks of a model, those in nested models too.

    Args:
        model: a built Functional or Sequential model of either Keras, or a subclassed one of Keras 3 whose call can
            be made on symbolic inputs.

    Returns:
        The blocks, in the order of the graph. A block inside the branch of another is one of its own.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built, or it is subclassed and its call cannot be followed.
    """
    walked = walkable(model)
    return _blocks(walked, _Macs(model, walked))


def _blocks(model: Model, macs: _Macs) -> tuple[Block, ...]:
    found = []
    for prefix, part in graphs(model):
        for node, shortcut in _returning(part):
            block = Block(prefix + node.layer.name, (), 0, node, shortcut)
            gone = tuple(macs.removed_layers([block]))
            found.append(dataclasses.replace(block, layers=gone, macs=macs.total - macs.without([block])))
    return tuple(found)


def _returning(model: Model) -> Iterator[tuple[flavor.GraphNode, int]]:
    """The additions of a graph all of whose inputs come from one of them, with the position of that one."""
    inputs, nodes, _ = flavor.graph_nodes(model)
    ancestors: dict[int, int] = {}  # by tensor: a bit for each tensor it is computed from
    bits = {id(tensor): 1 << number for number, tensor in enumerate(inputs)}
    ancestors.update(bits)
    for node in nodes:
        before = 0
        for tensor in node.inputs:
            before |= ancestors[id(tensor)]
        for tensor in node.outputs:
            bits[id(tensor)] = 1 << len(bits)
            ancestors[id(tensor)] = before | bits[id(tensor)]
        if _is_addition(node):
            for position, shortcut in enumerate(node.inputs):
                others = [tensor for number, tensor in enumerate(node.inputs) if number != position]
                if same_kind(shortcut, node.outputs[0]) and all(
                    tensor is not shortcut and ancestors[id(tensor)] & bits[id(shortcut)] for tensor in others
                ):
                    yield node, position


def _is_addition(node: flavor.GraphNode) -> bool:
    name = flavor.function_name(node.layer)
    is_addition = built_in_kind(node.layer) == "Add" if name is None else name in ("add", "addv2")
    return is_addition and len(node.inputs) > 1


def _passing(removed: Sequence[Block]) -> dict[int, int]:
    """By `id` of an addition's node the input that it returns when its block is removed."""
    return {id(block.node.node): block.shortcut for block in removed}


def _is_called(model: Model, block: Block, removed: Sequence[Block]) -> bool:
    return any(node.node is block.node.node for _, node in called(model, _passing(removed)))


class _Macs:
    """The MACs of a model without some of its blocks."""

    def __init__(self, model: Model, walked: Any) -> None:
        counted = count_macs(model)
        self.total = counted.total
        self._per_layer = counted.per_layer
        self._model = walked
        self._layers = dict.fromkeys(name for name, _ in called(walked, {}))

    def removed_layers(self, removed: Sequence[Block]) -> list[str]:
        """The path names of the layers that are called no more."""
        left = {name for name, _ in called(self._model, _passing(removed))}
        return [name for name in self._layers if name not in left]

    def without(self, removed: Sequence[Block]) -> int:
        """The MACs that are left."""
        gone = self.removed_layers(removed)
        return self.total - sum(
            macs
            for layer, macs in self._per_layer.items()
            if any(layer == name or layer.startswith(f"{name}/") for name in gone)
        )


class _Scorer:
    """Scores sets of blocks: the model is compiled once, with a factor for what each branch adds."""

    def __init__(self, model: Model, blocks: Sequence[Block], batches: list[Batch], loss: Any) -> None:
        import tensorflow as tf

        if not batches:
            raise ValueError("The data has no batches.")
        self._model = model
        self._numbers = {block.name: number for number, block in enumerate(blocks)}
        self._batches = batches
        labelled = all(batch.y is not None for batch in batches)
        has_loss = loss is not None or bool(getattr(model, "loss", None))
        self._losses = Losses(model, loss) if labelled and has_loss else None
        for _, y, sample_weight in batches if self._losses else ():
            check_labels(model, y, loss)
            check_sample_weights(sample_weight)
        gated = _Gated(model, blocks)
        self._run = tf.function(gated, autograph=False, reduce_retracing=True)
        self._expected = [self._outputs(batch, []) for batch in batches]
        self._loss = self._mean_loss(self._expected) if self._losses else 0.0
        finite = all(np.isfinite(output).all() for batch in self._expected for output in batch)
        if not (finite and math.isfinite(self._loss)):
            raise ValueError(
                f"Model {model.name!r} returns NaN or infinity on this data, so its blocks cannot be scored: "
                "check the data and the weights."
            )

    @property
    def measure(self) -> str:
        """What a score is."""
        return "increase of the loss" if self._losses else "change of the output"

    def score(self, removed: Sequence[Block]) -> float:
        """What the removal of these blocks does."""
        given = [self._outputs(batch, removed) for batch in self._batches]
        if self._losses:
            return self._mean_loss(given) - self._loss
        pairs = [list(zip(*batch, strict=True)) for batch in zip(self._expected, given, strict=True)]
        by_output = zip(*pairs, strict=True)
        return float(np.mean([_relative_change(output) for output in by_output]))

    def _outputs(self, batch: Batch, removed: Sequence[Block]) -> list[np.ndarray]:
        gates = np.ones(len(self._numbers), np.float32)
        gates[[self._numbers[block.name] for block in removed]] = 0
        return [np.asarray(output) for output in self._run(input_tensors(self._model, batch.x), gates)]

    def _mean_loss(self, outputs: Sequence[Sequence[np.ndarray]]) -> float:
        losses, counts = [], []
        for batch, given in zip(self._batches, outputs, strict=True):
            _, y, weight = batch
            packed = flavor.pack_outputs(self._model, given)
            assert self._losses is not None, "score asks only with labels"
            losses.append(float(self._losses(as_tensors(y), packed, as_tensors(weight))))
            counts.append(len(given[0]))
        return float(np.average(losses, weights=counts))


def _relative_change(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    change = sum(float(np.sum(np.square(new - old, dtype=np.float64))) for old, new in pairs)
    norm = sum(float(np.sum(np.square(old, dtype=np.float64))) for old, _ in pairs)
    return math.sqrt(change / norm) if norm else math.sqrt(change)


class _Gated:
    """Runs a model with what each block's branch adds multiplied by a factor."""

    def __init__(self, model: Model, blocks: Sequence[Block]) -> None:
        self._model = model
        self._blocks = {id(block.node.node): (number, block.shortcut) for number, block in enumerate(blocks)}

    def __call__(self, inputs: Sequence[Any], gates: Any) -> list[Any]:
        """The model's outputs, flat."""

        def call(node: flavor.GraphNode, taken: list[Any]) -> list[Any]:
            is_gated = id(node.node) in self._blocks
            return [self._gated_sum(node, taken, gates)] if is_gated else flavor.call_layer(node, taken)

        return flavor.run_model(self._model, inputs, call)

    def _gated_sum(self, node: flavor.GraphNode, taken: list[Any], gates: Any) -> Any:
        import tensorflow as tf

        number, shortcut = self._blocks[id(node.node)]
        total = taken[shortcut]
        for position, tensor in enumerate(taken):
            if position != shortcut:
                total = total + tensor * tf.cast(gates[number], tensor.dtype)
        return total


def _compare(model: Model, removed: Sequence[Block], shallower: Any) -> None:
    from edgeprune.channels.rebuild.proof import on_random_inputs, tolerance_of

    def run_both(inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        with flavor.state_restored(model), flavor.state_restored(shallower):
            return _Gated(model, removed)(inputs, np.zeros(len(removed), np.float32)), flavor.call_model(
                shallower, inputs
            )

    expected, given = on_random_inputs(model, run_both)
    for old, new in zip(expected, given, strict=True):
        difference = float(np.max(np.abs(np.subtract(old, new, dtype=np.float64)), initial=0.0))
        if not difference <= tolerance_of(model) * max(float(np.max(np.abs(old), initial=0.0)), 1e-6):
            raise RuntimeError(
                f"The model rebuilt from {model.name!r} without {', '.join(block.name for block in removed)} differs "
                f"from the original with these branches set to zero by {difference:.2e}: it is not to be trusted."
            )


def _ignored(blocks: Sequence[Block], ignore: Any, block: Block) -> bool:
    patterns = [ignore] if isinstance(ignore, str) else ignore
    if not (isinstance(patterns, Iterable) and all(isinstance(pattern, str) for pattern in patterns)):
        raise TypeError(f"ignore must be names or patterns of blocks or of layers in them; got {ignore!r}.")
    for pattern in patterns:
        if not any(fnmatch.filter((other.name, *other.layers), pattern) for other in blocks):
            raise ValueError(f"No residual block has the name, or a layer of the name, {pattern!r}.")
    return any(fnmatch.filter((block.name, *block.layers), pattern) for pattern in patterns)
