"""The plan: which channels of a model go. It can be read, edited, stored and proven before anything is built.

plan = plan_channels(model, target_macs=0.5, round_to=8)
print(plan)
smaller = plan.drop("conv_3", [0, 7]).apply()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Group, by_reason
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.importance import Ranking
from edgeprune.channels.plan.limits import HeldLimit, PlannedLatency
from edgeprune.channels.plan.plan_json import StoredPlan, read_plan, write_plan
from edgeprune.channels.plan.selection import freeze, similar
from edgeprune.channels.plan.solver import PlanTarget, macs_of, params_of
from edgeprune.data.batches import check_data
from edgeprune.number_checks import check_seed
from edgeprune.progress import status
from edgeprune.text_table import text_table
from edgeprune.types import DataLike, Model

if TYPE_CHECKING:
    from edgeprune.channels.rebuild.proof import Proof
    from edgeprune.channels.reconstruct.report import Reconstruction


@dataclass(frozen=True)
class Change:
    """An amount before and after the removal.

    Attributes:
        before: of the model.
        after: of what is left of it.
    """

    before: int
    after: int

    @property
    def kept(self) -> float:
        """The fraction that is left."""
        return self.after / self.before if self.before else 1.0

    def __str__(self) -> str:
        return f"{self.before:,} -> {self.after:,} ({self.kept:.1%})"


@dataclass(frozen=True)
class PlannedGroup:
    """What a plan does to one group.

    Attributes:
        name: the group's name.
        layers: path names of the layers that make its channels.
        before: the number of channels.
        after: the number that is left.
        macs_saved: how many MACs the model would save if only this group lost its channels.
    """

    name: str
    layers: tuple[str, ...]
    before: int
    after: int
    macs_saved: int


@dataclass(frozen=True, eq=False)
class ChannelPlan:
    """Which channels of a model are kept. `plan_channels` returns one; it never changes, and neither does the model.

    Attributes:
        graph: the model's channels.
        kept_mask: bool array `(graph.class_count,)`, true where the class is kept.
        target: what was requested and achieved; None for a plan made or edited by hand.
        ranking: what ranked the channels; None for a plan made or edited by hand.
        unprunable: names of groups that `round_to`, `min_channels` and `max_ratio` leave unchanged, with the reason.
        limits: of a plan with several limits, or one in bytes, each of them with what was reached.
        latency: the time the plan is made for; None where no time was requested.
    """

    graph: ChannelGraph
    kept_mask: np.ndarray
    target: PlanTarget | None = None
    ranking: Ranking | None = None
    unprunable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: tuple[HeldLimit, ...] = ()
    latency: PlannedLatency | None = None

    @property
    def model(self) -> Model:
        """The model the plan is for."""
        return self.graph.model

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of channels, in the order of their layers, frozen ones too."""
        return self.graph.groups

    @property
    def frozen(self) -> dict[str, str]:
        """The names of the groups and layers that keep all their channels, each with the reason."""
        return {**self.graph.frozen, **self.unprunable}

    @cached_property
    def kept(self) -> list[dict[int, np.ndarray]]:
        """For each of `model.weights` a dict {axis: sorted int array of the kept indices}; {} if untouched.

        Inside attention heads the array is (heads, indices): one row for each head of the model.
        """
        return [self.graph.kept_indices(weight, self.kept_mask) for weight in self.model.weights]

    @cached_property
    def macs(self) -> Change:
        """Multiply-accumulates of one inference."""
        return self._change(macs_of(self.graph))

    @cached_property
    def params(self) -> Change:
        """Parameters, those that are not trained included."""
        return self._change(params_of(self.graph))

    @cached_property
    def channels(self) -> Change:
        """Channels that can be dropped one by one, of all groups that are not frozen."""
        free = [group for group in self.groups if group.frozen is None]
        return Change(sum(group.count for group in free), sum(group.kept(self.kept_mask) for group in free))

    @cached_property
    def planned(self) -> tuple[PlannedGroup, ...]:
        """What happens to each group that is not frozen."""
        macs = macs_of(self.graph)

        def planned(group: Group) -> PlannedGroup:
            only = self.graph.full_mask()
            only[group.classes] = self.kept_mask[group.classes]
            after = group.kept(only)
            return PlannedGroup(group.name, group.layers, group.count, after, self.macs.before - macs(only))

        return tuple(planned(group) for group in self.groups if group.frozen is None)

    def summary(self, *, verbose: bool = False) -> None:
        """Print the plan as a table.

        Args:
            verbose: whether to print a line for each frozen group or layer; otherwise those of one reason share a line.
        """
        print(self.to_text(verbose=verbose))

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, *, verbose: bool = False, see: str = "plan.frozen") -> str:
        """The plan as a table.

        Args:
            verbose: as in `summary`.
            see: where a line that leaves names out says they are.

        Returns:
            The lines, as wide as the terminal.
        """
        rows = [
            (row.name, ", ".join(row.layers[1:]), f"{row.before:,}", f"{row.after:,}", f"{row.macs_saved:,}")
            for row in self.planned
        ]
        # Groups that are adjacent in a layer share what both save there, so that the rows alone do not add up.
        saved = self.macs.before - self.macs.after
        if shared := saved - sum(row.macs_saved for row in self.planned):
            rows.append(("shared by adjacent groups", "", "", "", f"{shared:,}"))
        rows.append(("total", "", f"{self.channels.before:,}", f"{self.channels.after:,}", f"{saved:,}"))
        lines = [text_table(("group", "with", "channels", "left", "MACs saved"), rows, left=(0, 1))]
        at = "" if self.graph.example is None else f" for an input of {self.graph.example}"
        lines += [f"channels    {self.channels}", f"MACs        {self.macs}{at}", f"parameters  {self.params}"]
        lines += [f"latency     {self.latency}"] if self.latency else []
        lines += [str(self.target)] if self.target else []
        lines += [str(limit) for limit in self.limits]
        frozen = self.frozen.items() if verbose else by_reason(self.frozen, see)
        lines += [f"frozen: {names} ({reason})" for names, reason in frozen]
        lines += [f"note: {note}" for note in self.graph.notes]
        return "\n".join([f"Channels of {self.model.name!r}", *lines])

    def keep(self, name: str, indices: int | Iterable[int] | None = None) -> ChannelPlan:
        """A new plan in which these channels are kept.

        Args:
            name: the group's name.
            indices: which of its channels, counted as in the model; all where left out.

        Returns:
            The new plan. The group's other channels do not change.

        Raises:
            TypeError: `name` is no text.
            ValueError: there is no such group or channel.
        """
        return self._edited(name, indices, keep=True)

    def drop(self, name: str, indices: int | Iterable[int]) -> ChannelPlan:
        """A new plan in which these channels are removed.

        Args:
            name: the group's name.
            indices: which of its channels, counted as in the model.

        Returns:
            The new plan. The group's other channels do not change.

        Raises:
            TypeError: `name` is no text.
            ValueError: there is no such group or channel, the group is frozen, or none of its channels would be left.
        """
        return self._edited(name, indices, keep=False)

    def to_json(self) -> str:
        """The plan as JSON: for each group that loses channels the indices of the kept ones."""
        return write_plan(
            StoredPlan(
                model=self.model.name,
                weights=[list(weight.shape) for weight in flavor.weights_of(self.model)],
                groups={
                    group.name: (group.size, np.flatnonzero(self.kept_mask[group.classes]).tolist())
                    for group in self.groups
                    if not self.kept_mask[group.classes].all()
                },
                frozen=self.frozen,
                target=self.target,
                ranking=self.ranking,
            )
        )

    @classmethod
    def from_json(cls, model: Model, text: str) -> ChannelPlan:
        """Read a plan that `to_json` wrote.

        Args:
            model: the model it was made for, or one with the same layers and shapes.
            text: the JSON.

        Returns:
            The plan for this model.

        Raises:
            TypeError: `model` is no Keras model.
            ValueError: the text is no plan, or it is for another model; the message names the first difference.
        """
        flavor.check_model(model)
        stored = read_plan(text)
        _check_shapes(model, stored.weights)
        graph = trace(model)
        free = {group.name for group in graph.groups} - set(graph.frozen)
        graph = freeze(graph, {name: reason for name, reason in stored.frozen.items() if name in free})
        plan = cls(graph, graph.full_mask())
        for name, (channels, kept) in stored.groups.items():
            group = plan._group(name)
            if group.size != channels:
                raise ValueError(f"Group {name!r} has {group.size} channels, and the plan is for {channels!r}.")
            plan = plan.drop(name, np.setdiff1d(np.arange(group.size), _positions(kept, group)))
        return dataclasses.replace(plan, target=stored.target, ranking=stored.ranking)

    def verify(self, seed: int = 0) -> Proof:
        """Prove the plan: the original whose dropped channels are read as zero computes the same.

        Args:
            seed: of the random inputs.

        Returns:
            The largest difference between the two on random inputs, and whether it is a rounding error.

        Raises:
            TypeError: `seed` is no number.
            ValueError: it is not whole, or negative; or the model returns other values at each call.
        """
        from edgeprune.channels.rebuild.proof import prove

        check_seed(seed)
        return prove(self.graph, self.kept_mask, self.apply(verify=False), seed)

    def apply(self, verify: bool = True, *, reconstruct: DataLike | None = None) -> Model:
        """Build the model without the dropped channels.

        Args:
            verify: prove that the smaller model is equal to the original without these channels, before reconstruction.
            reconstruct: samples to make up for the cut on, without labels or training: `plan.reconstruct(data).model`.

        Returns:
            A plain model of the same kind and the same Keras, with the same names.

        Raises:
            ValueError: the model cannot be run on random inputs, or cannot be compared: it holds NaN, or returns other
                values at each call; or the data do not fit it.
            RuntimeError: the proof failed; the model that was built is not to be trusted.
        """
        from edgeprune.channels.rebuild.proof import prove

        if reconstruct is not None:
            return self.reconstruct(reconstruct, verify=verify).model
        from edgeprune.channels.rebuild.slicing import rebuild

        with status(f"Removing channels of {self.model.name}"):
            smaller = rebuild(self.graph, self.kept_mask)
            proof = prove(self.graph, self.kept_mask, smaller) if verify else None
        if proof is not None and not proof.passed:
            raise RuntimeError(f"The model rebuilt from {self.model.name!r} is {proof}.")
        return smaller

    def reconstruct(
        self, data: DataLike, *, verify: bool = True, batch_size: int = 32, steps: int | None = None, seed: int = 0
    ) -> Reconstruction:
        """Build the model without the dropped channels, and make up for them on unlabelled data.

        In the order of the graph, each weight that reads what the cut has changed is solved by least squares: what its
        layer computes from the inputs that it has in the smaller model comes as near to the original's as it can.
        The data choose how far the weights may move; a batch normalization is set to the statistics of the data where
        that lowers the error. Nothing is trained. (He et al., Channel Pruning for Accelerating Very Deep Neural
        Networks, 2017.)

        Args:
            data: some hundred samples as the model meets them, in any form that `model.fit` accepts. Labels are not
                looked at.
            verify: prove the cut before, as `apply` does.
            batch_size: samples at once where `data` are arrays.
            steps: batches of `data` at most.
            seed: of the choice of the places that layers are solved on.

        Returns:
            The smaller model, with the errors of its layers and outputs before and after, and the layers that could not
            be solved.

        Raises:
            TypeError, ValueError, RuntimeError: as `apply`; or the data have no batches or do not fit the model, or
                what a layer returns for them is not finite.

        Example:
            >>> found = ep.plan_channels(model, pruning_ratio=0.5).reconstruct(x)
            >>> found.after < found.before
            True
        """
        from edgeprune.channels.reconstruct.reconstruct import reconstruct
        from edgeprune.channels.reconstruct.removal import ChannelRemoval

        check_data(data, batch_size, steps)
        check_seed(seed)
        removal = ChannelRemoval(self.graph, self.kept_mask, self.apply(verify))
        return reconstruct(removal, data, batch_size=batch_size, steps=steps, seed=seed)

    def _change(self, amount: Callable[[np.ndarray], int]) -> Change:
        return Change(amount(self.graph.full_mask()), amount(self.kept_mask))

    def _group(self, name: str) -> Group:
        if not isinstance(name, str):
            raise TypeError(f"A group has a name, such as {self.groups[0].name!r}; got {name!r}.")
        for group in self.groups:
            if group.name == name:
                return group
        raise ValueError(f"There is no group {name!r}.{similar(name, [group.name for group in self.groups])}")

    def _edited(self, name: str, indices: int | Iterable[int] | None, keep: bool) -> ChannelPlan:
        group = self._group(name)
        chosen = np.arange(group.size) if indices is None else _positions(indices, group)
        if group.frozen is not None and not keep and len(chosen):
            raise ValueError(f"Group {name!r} is frozen: {group.frozen}.")
        kept_mask = self.kept_mask.copy()
        kept_mask[group.classes[chosen]] = keep
        if not group.kept(kept_mask):
            raise ValueError(f"Group {name!r} would have no channels left; keep at least one.")
        return ChannelPlan(self.graph, kept_mask)


def _check_shapes(model: Model, shapes: Sequence[Sequence[int]]) -> None:
    weights = flavor.weights_of(model)
    if len(weights) != len(shapes):
        raise ValueError(f"The plan is for a model with {len(shapes)} weights; {model.name!r} has {len(weights)}.")
    for weight, shape in zip(weights, shapes, strict=True):
        if list(weight.shape) != shape:
            name = getattr(weight, "path", weight.name)
            raise ValueError(
                f"The plan does not fit: weight {name} of {model.name!r} has shape {tuple(weight.shape)}, not "
                f"{tuple(shape)}."
            )


def _positions(indices: int | Iterable[int], group: Group) -> np.ndarray:
    """Which channels of a group are meant: one, several, or a bool for each."""
    listed = list(indices) if isinstance(indices, Iterable) and not isinstance(indices, str) else [indices]
    if len(listed) == group.size and all(isinstance(one, bool | np.bool_) for one in listed):
        return np.flatnonzero(listed)
    whole = all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in listed)
    if not (whole and all(0 <= one < group.size for one in listed)):
        raise ValueError(
            f"Group {group.name!r} has the channels 0 to {group.size - 1}: pass such indices, or a bool for each; got "
            f"{str(indices)[:80]}."
        )
    return np.array(listed, int)
