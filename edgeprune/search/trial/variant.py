"""A model without some of its residual blocks, traced: what its widths mean, and what it computes at them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from edgeprune.channels.graph.coupling import Group
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.channel_plan import ChannelPlan
from edgeprune.channels.plan.importance import class_scores
from edgeprune.channels.plan.selection import freeze_in_attention
from edgeprune.channels.plan.solver import params_of
from edgeprune.channels.rebuild.slicing import rebuild
from edgeprune.depth.blocks import without_blocks
from edgeprune.schemes import scheme_of
from edgeprune.search.curves.sensitivity import removal_order
from edgeprune.search.trial.candidates import Candidates, Values
from edgeprune.search.trial.fake_weights import rounded_to_four_bits, with_zeros
from edgeprune.search.trial.quick_reconstruction import QuickReconstruction
from edgeprune.search.trial.record import Candidate
from edgeprune.types import DataLike, Model


class Variant:
    """A model without some of its blocks.

    Args:
        original: the model, which is not changed.
        removed_blocks: names of the blocks that are removed.
        solved_on: unlabelled samples that layers are solved on.
        judged_on: samples that outputs are computed for.
        batch_size: samples at once.
        seed: of the places that layers are solved on.
    """

    def __init__(
        self,
        original: Model,
        removed_blocks: tuple[str, ...],
        solved_on: DataLike,
        judged_on: DataLike,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model = without_blocks(original, removed_blocks) if removed_blocks else original
        self.graph = freeze_in_attention(trace(self.model), "heads")
        self._solved_on, self._judged_on, self._batch_size, self._seed = solved_on, judged_on, batch_size, seed

    @property
    def free_groups(self) -> list[Group]:
        """The groups that can lose channels."""
        return [group for group in self.graph.groups if group.frozen is None and group.count > 1]

    def mask(self, widths: Mapping[str, int]) -> np.ndarray:
        """Which channels are kept: of each group the most important ones, by their l2 norm.

        Args:
            widths: how many each group keeps, by its name; groups that are left out keep all.

        Raises:
            ValueError: there is no such group, it cannot lose channels, or has not as many.
        """
        kept, groups = self.graph.full_mask(), {group.name: group for group in self.free_groups}
        for name, width in widths.items():
            if name not in groups:
                raise ValueError(f"Model {self.model.name!r} has no group {name!r} that can lose channels.")
            if not 1 <= width <= groups[name].count:
                raise ValueError(f"Group {name!r} has {groups[name].count} channels, and {width} are to be kept.")
            kept[removal_order(groups[name], self._scores)[:, : groups[name].count - width]] = False
        return kept

    def widths(self, kept_mask: np.ndarray) -> dict[str, int]:
        """How many channels each group keeps, of those that lose some."""
        kept = {group.name: (group.kept(kept_mask), group.count) for group in self.graph.groups}
        return {name: left for name, (left, count) in kept.items() if left < count}

    def macs(self, widths: Mapping[str, int]) -> int:
        """Multiply-accumulates at these widths."""
        return self.graph.remaining_macs(self.mask(widths))

    def params(self, widths: Mapping[str, int]) -> int:
        """Parameters at these widths."""
        return params_of(self.graph)(self.mask(widths))

    def outputs(self, candidate: Candidate) -> dict[str, np.ndarray]:
        """What a candidate computes for the samples that are judged on, without building or training it."""
        return self._candidates.outputs(self.mask(candidate.widths), self._values(candidate))

    def quick_model(self, candidate: Candidate) -> Model:
        """A candidate as a model, with the weights of `outputs`."""
        return self._candidates.built(self.mask(candidate.widths), self._values(candidate))

    def plain_model(self, candidate: Candidate) -> Model:
        """A candidate as a model, with the weights of the original."""
        return rebuild(self.graph, self.mask(candidate.widths))

    def solved_model(self, candidate: Candidate) -> Model:
        """A candidate as a model, proven, and with the layers behind the cut solved one after the other."""
        if not candidate.widths:
            return self.plain_model(candidate)
        plan = ChannelPlan(self.graph, self.mask(candidate.widths))
        return plan.reconstruct(self._solved_on, batch_size=self._batch_size, seed=self._seed).model

    def _values(self, candidate: Candidate) -> Values:
        kept = self.mask(candidate.widths)
        values: Values = self._solver.values(kept) if candidate.widths else {}
        if candidate.sparsity:
            values = with_zeros(self.graph, kept, values, candidate.sparsity)
        if scheme_of(candidate.quantization).weight_bits == 4:
            values = rounded_to_four_bits(self.graph, kept, values)
        return values

    @cached_property
    def _scores(self) -> np.ndarray:
        return class_scores(self.graph, "l2", None, self._seed)

    @cached_property
    def _candidates(self) -> Candidates:
        return Candidates(self.graph, self._judged_on, self._batch_size)

    @cached_property
    def _solver(self) -> QuickReconstruction:
        return QuickReconstruction(self.graph, self._solved_on, self._batch_size, self._seed)
