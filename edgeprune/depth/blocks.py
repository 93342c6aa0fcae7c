"""Whole residual blocks removed: the branch that returns to its own addition is removed, the shortcut kept.

    plan = plan_blocks(model, data=(x, y), num_blocks=2)
    print(plan)
    shallower = plan.apply()

A block is scored by what its removal does to the output on data, or to the loss where there are labels and a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import numpy as np

from edgeprune import flavor
from edgeprune.data.batches import batches_of
from edgeprune.data.ports import input_shapes
from edgeprune.depth.block_scores import Gated, Scorer
from edgeprune.depth.bypass import rebuilt_without, walkable
from edgeprune.depth.identity import identities
from edgeprune.depth.residual_blocks import Block, MacsWithout, blocks_of, is_called, passing
from edgeprune.layer_patterns import fits_pattern, similar
from edgeprune.number_checks import check_target, check_whole
from edgeprune.progress import status, track
from edgeprune.text_table import text_table
from edgeprune.types import DataLike, Loss, Model


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
            instead = {**identities(self.walked), **passing(self.removed)}
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
        ignore: names or patterns of blocks, or of layers in them, that are kept (`edgeprune.layer_patterns`).
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
    elif target_macs is not None:
        check_target("target_macs", target_macs)
    if data is None:
        raise ValueError("Blocks are scored on data: pass data=x, data=(x, y) or a dataset of batches.")
    walked = walkable(model)
    whole = MacsWithout(model, walked)
    blocks = blocks_of(walked, whole)
    if not blocks:
        raise ValueError(
            f"Model {model.name!r} has no residual blocks: no addition of a tensor and of what is computed from it."
        )
    left = [block for block in blocks if not _ignored(blocks, ignore, block)]
    scorer = Scorer(walked, blocks, list(batches_of(data, batch_size, steps, inputs=input_shapes(walked))), loss)

    def reached(removed: Sequence[Block]) -> bool:
        if target_macs is None:
            return len(removed) >= (num_blocks or 0)
        return whole.without(removed) <= target_macs * whole.total

    first, removed = _remove_until(reached, left, walked, scorer, whole, model.name)
    return BlockPlan(
        model,
        walked,
        tuple(_scored(block, first, removed) for block in blocks),
        scorer.measure,
        whole.total,
        whole.without(list(removed)),
        tuple(removed),
    )


def _remove_until(
    reached: Callable[[Sequence[Block]], bool],
    blocks: Sequence[Block],
    walked: Any,
    scorer: Scorer,
    whole: MacsWithout,
    name: str,
) -> tuple[dict[str, float], dict[Block, float]]:
    """All blocks' scores while none is removed, and the removed ones with their scores, in their order."""
    first: dict[str, float] = {}
    removed: dict[Block, float] = {}
    while not reached(list(removed)):
        candidates = [block for block in blocks if is_called(walked, block, list(removed))]
        if not candidates:
            share = whole.without(list(removed)) / whole.total
            raise ValueError(
                f"Only {len(removed)} of the blocks of {name!r} can be removed; {share:.3f} of its MACs are left."
            )
        scores = {}
        for block in track(candidates, f"Scoring {len(candidates)} blocks"):
            scores[block.name] = scorer.score([*removed, block])
        first = first or scores
        best = min(candidates, key=lambda block: scores[block.name])
        removed[best] = scores[best.name]
    return first, removed


def _scored(block: Block, first: Mapping[str, float], removed: Mapping[Block, float]) -> ScoredBlock:
    place = list(removed).index(block) + 1 if block in removed else None
    score = first.get(block.name, math.nan)
    return ScoredBlock(block.name, block.layers, block.macs, score, place, removed.get(block))


def without_blocks(model: Model, names: Sequence[str], verify: bool = True) -> Model:
    """Remove residual blocks by their names.

    Args:
        model: a built Functional or Sequential model of `keras` 3 or `tf_keras`. It is not changed.
        names: the blocks, as `plan_blocks` names them.
        verify: prove the result on random inputs.

    Returns:
        A plain Functional model with the same names and weights.

    Raises:
        TypeError: it is no Keras model.
        ValueError: there is no such block.
        RuntimeError: the proof failed.
    """
    walked = walkable(model)
    whole = MacsWithout(model, walked)
    blocks = {block.name: block for block in blocks_of(walked, whole)}
    for name in names:
        if name not in blocks:
            raise ValueError(f"Model {model.name!r} has no residual block {name!r}.{similar(name, blocks)}")
    removed = tuple(blocks[name] for name in names)
    plan = BlockPlan(model, walked, (), "", whole.total, whole.without(removed), removed)
    return plan.apply(verify)


def _compare(model: Model, removed: Sequence[Block], shallower: Model) -> None:
    from edgeprune.channels.rebuild.proof import on_random_inputs, tolerance_of

    def run_both(inputs: list[Any]) -> tuple[list[Any], list[Any]]:
        with flavor.state_restored(model), flavor.state_restored(shallower):
            return Gated(model, removed)(inputs, np.zeros(len(removed), np.float32)), flavor.call_model(
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


def _ignored(blocks: Sequence[Block], ignore: str | Iterable[str], block: Block) -> bool:
    patterns = [ignore] if isinstance(ignore, str) else ignore
    if not (isinstance(patterns, Iterable) and all(isinstance(pattern, str) for pattern in patterns)):
        raise TypeError(f"ignore must be names or patterns of blocks or of layers in them; got {ignore!r}.")
    for pattern in patterns:
        if not any(_fits(other, pattern) for other in blocks):
            known = [name for other in blocks for name in (other.name, *other.layers)]
            raise ValueError(
                f"No residual block has the name, or a layer of the name, {pattern!r}.{similar(pattern, known)}"
            )
    return any(_fits(block, pattern) for pattern in patterns)


def _fits(block: Block, pattern: str) -> bool:
    return any(fits_pattern(name, pattern) for name in (block.name, *block.layers))
