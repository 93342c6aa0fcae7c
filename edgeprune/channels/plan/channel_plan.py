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
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.coupling import ChannelGraph, Group, by_reason
from edgeprune.channels.graph.trace import trace
from edgeprune.channels.plan.importance import COMPARABLE, ImportanceLike, Ranking, class_scores, relative
from edgeprune.channels.plan.plan_json import StoredPlan, read_plan, write_plan
from edgeprune.channels.plan.plan_settings import PlanSettings, check_settings
from edgeprune.channels.plan.selection import entries, freeze, freeze_in_attention, matching, similar
from edgeprune.channels.plan.solver import PlanTarget, macs_of, params_of, solve
from edgeprune.channels.plan.widths import kept_whole
from edgeprune.flavor.example_shapes import InputShape
from edgeprune.number_checks import check_seed
from edgeprune.progress import status
from edgeprune.text_table import text_table
from edgeprune.types import Attention, DataLike, Layer, Loss, Model, Reduction, Scope, Variable

if TYPE_CHECKING:
    from edgeprune.channels.rebuild.proof import Proof


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
    """Which channels of a model stay. `plan_channels` makes one; it never changes, and neither does the model.

    Attributes:
        graph: the model's channels.
        kept_mask: bool array `(graph.class_count,)`, true where the class stays.
        target: what was asked for and reached; None for a plan made or edited by hand.
        ranking: what ranked the channels; None for a plan made or edited by hand.
        kept_whole: names of groups that `round_to`, `min_channels` and `max_ratio` let lose nothing, with the reason.
    """

    graph: ChannelGraph
    kept_mask: np.ndarray
    target: PlanTarget | None = None
    ranking: Ranking | None = None
    kept_whole: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        return {**self.graph.frozen, **self.kept_whole}

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
            only = self.graph.everything()
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
        # Groups that meet in a layer share what both save there, so that the rows alone do not add up.
        saved = self.macs.before - self.macs.after
        if shared := saved - sum(row.macs_saved for row in self.planned):
            rows.append(("shared by groups that meet", "", "", "", f"{shared:,}"))
        rows.append(("total", "", f"{self.channels.before:,}", f"{self.channels.after:,}", f"{saved:,}"))
        lines = [text_table(("group", "with", "channels", "left", "MACs saved"), rows, left=(0, 1))]
        at = "" if self.graph.example is None else f" for an input of {self.graph.example}"
        lines += [f"channels    {self.channels}", f"MACs        {self.macs}{at}", f"parameters  {self.params}"]
        lines += [str(self.target)] if self.target else []
        frozen = self.frozen.items() if verbose else by_reason(self.frozen, see)
        lines += [f"frozen: {names} ({reason})" for names, reason in frozen]
        lines += [f"note: {note}" for note in self.graph.notes]
        return "\n".join([f"Channels of {self.model.name!r}", *lines])

    def keep(self, name: str, indices: int | Iterable[int] | None = None) -> ChannelPlan:
        """A new plan in which these channels stay.

        Args:
            name: the group's name.
            indices: which of its channels, counted as in the model; all where left out.

        Returns:
            The new plan. The others of the group's channels stay or go as they did.

        Raises:
            TypeError: `name` is no text.
            ValueError: there is no such group or channel.
        """
        return self._edited(name, indices, stays=True)

    def drop(self, name: str, indices: int | Iterable[int]) -> ChannelPlan:
        """A new plan in which these channels go.

        Args:
            name: the group's name.
            indices: which of its channels, counted as in the model.

        Returns:
            The new plan. The others of the group's channels stay or go as they did.

        Raises:
            TypeError: `name` is no text.
            ValueError: there is no such group or channel, the group is frozen, or none of its channels would be left.
        """
        return self._edited(name, indices, stays=False)

    def to_json(self) -> str:
        """The plan as JSON: for each group that loses channels the indices of those that stay."""
        return write_plan(
            StoredPlan(
                model=self.model.name,
                weights=[list(weight.shape) for weight in self.model.weights],
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
        if not flavor.is_model(model):
            raise TypeError(f"Expected a Keras model, got {type(model).__name__}: {str(model)[:80]}")
        stored = read_plan(text)
        _check_shapes(model, stored.weights)
        graph = trace(model)
        free = {group.name for group in graph.groups} - set(graph.frozen)
        graph = freeze(graph, {name: reason for name, reason in stored.frozen.items() if name in free})
        plan = cls(graph, graph.everything())
        for name, (channels, kept) in stored.groups.items():
            group = plan._group(name)
            if group.size != channels:
                raise ValueError(f"Group {name!r} has {group.size} channels, and the plan is for {channels!r}.")
            plan = plan.drop(name, np.setdiff1d(np.arange(group.size), _positions(kept, group)))
        return dataclasses.replace(plan, target=stored.target, ranking=stored.ranking)

    def verify(self, seed: int = 0) -> Proof:
        """Prove the plan: the original with what reads the dropped channels silenced computes the same.

        Args:
            seed: of the random inputs.

        Returns:
            The largest difference between the two on random inputs, and whether it is a rounding error.

        Raises:
            TypeError: `seed` is no number.
            ValueError: it is not whole, or negative; or the model gives other values at each call.
        """
        from edgeprune.channels.rebuild.proof import verify

        check_seed(seed)
        return verify(self.graph, self.kept_mask, self.apply(verify=False), seed)

    def apply(self, verify: bool = True) -> Model:
        """Build the model without the dropped channels.

        Args:
            verify: prove that it computes what the plan says, and raise if it does not.

        Returns:
            A plain model of the same kind and the same Keras, with the same names.

        Raises:
            ValueError: the model cannot be run on random inputs, or cannot be compared, as it holds NaN or gives other
                values at each call.
            RuntimeError: the proof failed; the model that was built is not to be trusted.
        """
        from edgeprune.channels.rebuild.proof import verify as prove
        from edgeprune.channels.rebuild.slicing import rebuild

        with status(f"Removing channels of {self.model.name}"):
            smaller = rebuild(self.graph, self.kept_mask)
            proof = prove(self.graph, self.kept_mask, smaller) if verify else None
        if proof is not None and not proof.passed:
            raise RuntimeError(f"The model rebuilt from {self.model.name!r} is {proof}.")
        return smaller

    def _change(self, amount: Callable[[np.ndarray], int]) -> Change:
        return Change(amount(self.graph.everything()), amount(self.kept_mask))

    def _group(self, name: str) -> Group:
        if not isinstance(name, str):
            raise TypeError(f"A group has a name, such as {self.groups[0].name!r}; got {name!r}.")
        for group in self.groups:
            if group.name == name:
                return group
        raise ValueError(f"There is no group {name!r}.{similar(name, [group.name for group in self.groups])}")

    def _edited(self, name: str, indices: int | Iterable[int] | None, stays: bool) -> ChannelPlan:
        group = self._group(name)
        chosen = np.arange(group.size) if indices is None else _positions(indices, group)
        if group.frozen is not None and not stays and len(chosen):
            raise ValueError(f"Group {name!r} keeps all its channels: {group.frozen}.")
        kept_mask = self.kept_mask.copy()
        kept_mask[group.classes[chosen]] = stays
        if not group.kept(kept_mask):
            raise ValueError(f"Group {name!r} would have no channels left; one must stay.")
        return ChannelPlan(self.graph, kept_mask)


def plan_channels(
    model: Model,
    *,
    pruning_ratio: float | None = None,
    target_macs: float | None = None,
    target_params: float | None = None,
    importance: ImportanceLike = "l2",
    reduction: Reduction | None = None,
    scope: Scope = "global",
    ratios: Mapping[str, float] | None = None,
    round_to: int | str | Callable[[Group], int] = 1,
    ignore: str | Layer | Iterable[str | Layer] = (),
    attention: Attention = "heads",
    min_channels: int = 1,
    max_ratio: float = 0.9,
    data: DataLike | None = None,
    loss: Loss | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
    input_shape: InputShape = None,
) -> ChannelPlan:
    """Choose the channels of a model to remove.

    Pass exactly one of `pruning_ratio`, `target_macs` and `target_params`; none where `ratios` says all.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        pruning_ratio: fraction of the channels to remove, 0 to below 1. Channels that go together count once.
        target_macs: fraction of the MACs to keep, above 0 to 1.
        target_params: fraction of the parameters to keep, above 0 to 1.
        importance: how channels are ranked: a name, or a function that is passed a group and returns a number for
            each of its channels. Scores are over all weights that a channel owns; the numbers here are those of a
            unit with the weights `[3, -4]` in its own kernel and `[12]` in the next one:

            - `"l1"`: absolute weights, 3 + 4 + 12 = 19 (Li et al., Pruning Filters for Efficient ConvNets, 2017).
            - `"l2"`: the norm of the weights, sqrt(9 + 16 + 144) = 13 (the same).
            - `"lamp"`: squared weights, 169, over those of all channels of the group that are as large or larger
              (Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, 2021).
            - `"fpgm"`: distances to the other filters of its layer, to `[1, 0]` sqrt(4 + 16) = 4.47 (He et al., Filter
              Pruning via Geometric Median, 2019).
            - `"bn_scale"`: the absolute scale of its batch normalization (Liu et al., Network Slimming, 2017).
            - `"activation"`: its mean absolute activation on `data`, 3 for the input `[1, 0]` (Molchanov et al.,
              Pruning Convolutional Neural Networks for Resource Efficient Inference, 2017).
            - `"taylor"`: |weight x gradient|, |3 x 12| + |-4 x 0| + |12 x 3| = 72 for that input and a loss whose
              gradient at the output is 1 (Molchanov et al., Importance Estimation for Neural Network Pruning, 2019).
            - `"fisher"`: (weight x gradient)² / 2, (36² + 0 + 36²) / 2 = 1296 (LeCun et al., Optimal Brain Damage,
              1990; Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018). Smaller
              batches estimate it better.
            - `"random"`: chance, from `seed`.
        reduction: how a channel's scores in the layers that it runs through are reduced to one: `"sum"`, `"mean"`,
            `"max"` or `"l2"`; left out, `"l2"` of `"l2"` and `"sum"` of the others.
            The channels of a group own as many slices each, and scores are relative to their group: here the mean
            chooses as the sum does.
        scope: `"global"` ranks all channels together, `"local"` takes the same fraction from each group, `"isomorphic"`
            ranks groups of the same structure together. Scores are ranked relative to the mean of their group, those
            of `"lamp"`, `"random"` and of a function as they are.
        ratios: layer name or pattern (`"block_?/conv*"`) to the fraction removed from the groups it matches, whatever
            the target asks of the others. The first pattern that matches a group counts.
        round_to: what is left of a group's channels is a multiple of this: a number, a function of the group, or
            `"tile"` / `"tile-int8"` for widths that run fast on a phone. A group may also stay whole.
        ignore: layers, or names or patterns of layers, whose channels all stay. A nested model stands for its layers.
        attention: what attention layers lose: `"heads"`, whole heads; `"dims"`, channels inside the heads, of the query
            and the key (`key_dim`) and of the value (`value_dim`): all heads lose as many, each its own; or `"both"`.
            The layer's scale stays what it was. Kernels for flash attention want multiples of 8: `round_to=8`.
        min_channels: channels that each group keeps at least.
        max_ratio: fraction of its channels that a group loses at most.
        data: `(x, y)` or a dataset of batches, for an importance that is measured on data.
        loss: for such an importance, where the model is not compiled.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.
        seed: of `"random"`.
        input_shape: of a model of open length or size, the shape that MACs are counted for, with or without the batch;
            by input name where there are several. Left out, one that the model accepts.

    Returns:
        The plan. `plan.target` says how near it came to what was asked.

    Raises:
        TypeError: `model` is no Keras model, or an argument is of the wrong type.
        ValueError: the model is not built, an argument is out of its range, data do not fit the model or labels its
            loss, a name matches nothing, nothing can be removed, or the target cannot be reached.

    Example:
        >>> plan = plan_channels(model, target_macs=0.6, round_to=8, ignore=["stem*"])
        >>> [layer.filters for layer in plan.apply().layers[:2]]  # they were 8 and 16
        [8, 8]
    """
    by_hand = pruning_ratio is None and target_macs is None and target_params is None
    target = (
        ("pruning_ratio", 0.0)
        if by_hand and ratios
        else one_target(pruning_ratio=pruning_ratio, target_macs=target_macs, target_params=target_params)
    )
    with status("Following the channels"):
        graph = trace(model, input_shape)
    return plan_graph(
        graph,
        target,
        importance=importance,
        reduction=reduction,
        scope=scope,
        ratios=ratios,
        round_to=round_to,
        ignore=ignore,
        attention=attention,
        min_channels=min_channels,
        max_ratio=max_ratio,
        data=data,
        loss=loss,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
    )


def plan_graph(
    graph: ChannelGraph,
    target: tuple[str, float],
    *,
    importance: ImportanceLike = "l2",
    reduction: Reduction | None = None,
    scope: Scope = "global",
    ratios: Mapping[str, float] | None = None,
    round_to: int | str | Callable[[Group], int] = 1,
    ignore: str | Layer | Iterable[str | Layer] = (),
    attention: Attention = "heads",
    min_channels: int = 1,
    max_ratio: float = 0.9,
    data: DataLike | None = None,
    loss: Loss | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
    gone: np.ndarray | None = None,
) -> ChannelPlan:
    """Choose the channels to remove from a model that is traced already.

    Args:
        graph: the traced model, whose weights are scored as they are now.
        target: `("pruning_ratio" | "target_macs" | "target_params", fraction)`.
        gone: bool array `(graph.class_count,)`: classes that have been removed before and stay so.
        importance, reduction, scope, ratios, round_to, ignore, attention, min_channels, max_ratio, data, loss,
            batch_size, steps, seed: as `plan_channels` takes them.

    Returns:
        The plan.

    Raises:
        TypeError, ValueError: as `plan_channels`.
    """
    kind, asked = target
    check_settings(
        importance=importance,
        reduction=reduction,
        scope=scope,
        ratios=ratios,
        round_to=round_to,
        ignore=ignore,
        attention=attention,
        min_channels=min_channels,
        max_ratio=max_ratio,
        data=data,
        loss=loss,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
    )
    graph = freeze_in_attention(graph, attention)
    graph = freeze(graph, {group.name: "ignored" for entry in entries(ignore) for group in matching(graph, entry)})
    scores = class_scores(
        graph, importance, data, seed, reduction=reduction, loss=loss, batch_size=batch_size, steps=steps
    )
    graph, scores = _without_unscored(graph, scores, importance)
    if importance not in COMPARABLE and not callable(importance):
        scores = relative(graph, scores)
    kept_mask, reached = solve(
        graph,
        scores,
        kind,
        asked,
        scope=scope,
        ratios=_by_group(graph, ratios or {}),
        round_to=round_to,
        min_channels=min_channels,
        max_ratio=max_ratio,
        gone=gone,
    )
    ranking = Ranking(importance if isinstance(importance, str) else "a function", reduction)
    free = [group for group in graph.groups if group.frozen is None]
    whole = kept_whole(free, round_to, min_channels, max_ratio, gone)
    return ChannelPlan(graph, kept_mask, reached if asked else None, ranking, whole)


def prune_channels(model: Model, *, verify: bool = True, **settings: Unpack[PlanSettings]) -> Model:
    """Remove channels from a model: `plan_channels(model, **settings).apply(verify)`.

    Args:
        model: a built model of `keras` 3 or `tf_keras`. It is not changed.
        verify: prove that the smaller model computes what the plan says.
        **settings: as `plan_channels` takes them.

    Returns:
        A plain model of the same kind and the same Keras, with the same names.

    Raises:
        TypeError: as `plan_channels`.
        ValueError: as `plan_channels`, or the model cannot be run or compared on random inputs.
        RuntimeError: the proof failed.

    Example:
        >>> smaller = prune_channels(model, pruning_ratio=0.5, scope="local")
        >>> [layer.filters for layer in smaller.layers[:2]]  # they were 8 and 16
        [4, 8]
    """
    return plan_channels(model, **settings).apply(verify)


def one_target(*, pruning_ratio: Any, target_macs: Any, target_params: Any) -> tuple[str, float]:
    """The one target that is given, with its name.

    Raises:
        ValueError: none is given, or more than one.
    """
    given = [
        (kind, value)
        for kind, value in (
            ("pruning_ratio", pruning_ratio),
            ("target_macs", target_macs),
            ("target_params", target_params),
        )
        if value is not None
    ]
    if len(given) != 1:
        found = " and ".join(f"{kind}={value}" for kind, value in given) or "none of them"
        raise ValueError(f"Pass exactly one of pruning_ratio=, target_macs= and target_params=; got {found}.")
    (kind, value), *_ = given
    if isinstance(value, Mapping):
        raise ValueError(f"{kind}= takes one number; ratios of single groups are given as ratios=.")
    return kind, value


def _by_group(graph: ChannelGraph, ratios: Mapping[str, float]) -> dict[str, float]:
    """The ratios by group name; the first pattern that matches a group counts."""
    of_group: dict[str, float] = {}
    for pattern, ratio in ratios.items():
        groups = matching(graph, pattern)
        if ratio and all(group.frozen for group in groups):
            raise ValueError(f"Nothing can be removed from {pattern!r}: {groups[0].frozen}.")
        for group in groups:
            of_group.setdefault(group.name, ratio)
    return of_group


def _without_unscored(
    graph: ChannelGraph, scores: np.ndarray, importance: ImportanceLike
) -> tuple[ChannelGraph, np.ndarray]:
    """Groups of which the importance knows nothing keep all their channels.

    Raises:
        ValueError: it knows nothing because a weight is NaN.
    """
    unscored = np.isnan(scores)
    for group in graph.groups if unscored.any() else ():
        for slot in group.slots if unscored[group.classes].any() else ():
            if not np.isfinite(np.sum(np.asarray(slot.weight))):
                name = graph.names.get(id(slot.layer), slot.layer.name)
                raise ValueError(f"{name}/{slot.name} holds NaN or infinite values: its channels cannot be ranked.")
    reason = f"{importance if isinstance(importance, str) else 'the importance'} says nothing about these channels"
    graph = freeze(graph, {group.name: reason for group in graph.groups if unscored[group.classes].any()})
    return graph, np.where(unscored, 0.0, scores)


def _check_shapes(model: Model, shapes: Sequence[Sequence[int]]) -> None:
    weights: list[Variable] = [*model.weights]
    if len(weights) != len(shapes):
        raise ValueError(f"The plan is for a model with {len(shapes)} weights; {model.name!r} has {len(weights)}.")
    for weight, shape in zip(weights, shapes, strict=True):
        if list(weight.shape) != shape:
            name = getattr(weight, "path", weight.name)
            raise ValueError(
                f"The plan does not fit: weight {name} of {model.name!r} has shape {tuple(weight.shape)}, not "
                f"{tuple(shape)}."
            )


def _positions(indices: Any, group: Group) -> np.ndarray:
    """Which channels of a group are meant: one, several, or a bool for each."""
    listed = list(indices) if isinstance(indices, Iterable) and not isinstance(indices, str) else [indices]
    if len(listed) == group.size and all(isinstance(one, bool | np.bool_) for one in listed):
        return np.flatnonzero(listed)
    whole = all(isinstance(one, int | np.integer) and not isinstance(one, bool) for one in listed)
    if not (whole and all(0 <= one < group.size for one in listed)):
        raise ValueError(
            f"Group {group.name!r} has the channels 0 to {group.size - 1}: give such numbers, or a bool for each; got "
            f"{str(indices)[:80]}."
        )
    return np.array(listed, int)
