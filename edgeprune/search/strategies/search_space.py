"""What a strategy may ask for, and the candidate that it means: the settings of a trial are turned into widths here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from edgeprune.channels.plan.limits import Limits
from edgeprune.channels.plan.planning import plan_graph
from edgeprune.channels.plan.widths import narrowest, width_of
from edgeprune.depth.blocks import plan_blocks
from edgeprune.depth.residual_blocks import find_blocks
from edgeprune.schemes import Scheme, scheme_of
from edgeprune.search.curves.curves import Sensitivity
from edgeprune.search.curves.sensitivity import sensitivity
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.strategies.directions import Directions
from edgeprune.search.trial.file_costs import QuantizationLike
from edgeprune.search.trial.files import TrialFiles
from edgeprune.search.trial.maker import Maker
from edgeprune.search.trial.record import Candidate
from edgeprune.search.trial.variant import Variant
from edgeprune.search.verdict.judge import taken
from edgeprune.targets import Target
from edgeprune.types import Quantization

# How a file is quantized, and whether its model is trained for that.
Way = tuple[QuantizationLike, bool]
# What tells the groups how much each loses: measured curves, the norms of all channels, or the same of each.
WeighedBy = Literal["curves", "l2", "local"]
AUTO = "auto"
# Where a target's widths are rounded to the tiles of its kernels, fewer MACs may still be in between.
_FINER_WIDTHS = 8
_TRAINED_FOR = ("int8", "int4")


class SearchSpace:
    """The candidates of a search.

    Args:
        maker: knows the model's variants.
        journal: keeps the curves.
        files: those of the trials that others begin from.
        cache: a file for single measurements of the curves, which take long; None to keep none.
        ways: how files may be quantized, the preferred one first.
    """

    def __init__(
        self, maker: Maker, journal: TrialJournal, files: TrialFiles, cache: Path | None, ways: Sequence[Way]
    ) -> None:
        self._maker, self._journal, self._files, self._cache = maker, journal, files, cache
        self.ways = tuple(ways)
        self._curves: dict[tuple[str, ...], Sensitivity] = {}
        if journal.sensitivity is not None:
            self._curves[()] = journal.sensitivity

    @property
    def whole(self) -> Variant:
        """The model with all its blocks."""
        return self._maker.variant()

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The residual blocks that can be removed, the one that matters least first."""
        work, found = self._maker.work, 0
        try:
            found = len(find_blocks(work.model))
        except ValueError:  # a subclassed model whose call cannot be followed
            return ()
        data = taken(work.judged.x, self._maker.quick_rows)
        while found:
            try:
                plan = plan_blocks(work.model, num_blocks=found, data=data, batch_size=work.settings.batch_size)
                return tuple(block.name for block in plan.removed)
            except ValueError:  # one inside the branch of another is gone with it
                found -= 1
        return ()

    @property
    def directions(self) -> Directions:
        """What the guided search may do beside widths."""
        four_bits = [way for way, (one, _) in enumerate(self.ways) if scheme_of(one).weight_bits == 4]
        return Directions(
            num_ways=len(self.ways),
            four_bits=tuple(four_bits),
            quantize_aware=tuple(way for way, (_, is_trained_for) in enumerate(self.ways) if is_trained_for),
            num_blocks=len(self.blocks),
            finer_widths=_FINER_WIDTHS if isinstance(self._target.round_to, str) else None,
            compresses_zeros="max_gzip_size" in self._maker.work.budget.limits,
            plans_within=self.can_plan_within,
            epochs=self._num_epochs,
        )

    def narrowest(self) -> dict[int, dict[str, Any]]:
        """By the number of a way to quantize, the settings of the narrowest model that there is."""
        kept, count = dict.fromkeys((group.name for group in self.whole.free_groups), 0.0), len(self.blocks)
        trained = {"epochs": self._num_epochs} if self._num_epochs else {}
        return {way: {"keep": kept, "num_blocks": count, "way": way, **trained} for way in range(len(self.ways))}

    def least_share(self, settings: Mapping[str, Any]) -> float:
        """The least `"target_macs"` that widths can come to, with the blocks and the rounding of these settings."""
        variant = self._maker.variant(self.blocks[: settings.get("num_blocks", 0)])
        return variant.graph.remaining_macs(narrowest(variant.graph, self._round_to(settings))) / self.whole.graph.macs

    def candidate(self, settings: Mapping[str, Any]) -> Candidate:
        """The candidate that settings mean; where all widths round to the original's, that, which is not trained.

        Args:
            settings: the widths as `"target_macs"`, the fraction of the original's MACs to keep, with `"weighed_by"`;
                as `"within"`, the fraction of each limit to use up, with `"weighed_by"`; or as `"keep"`, the fraction
                of its channels that each group keeps; all are kept where none is there. `"num_blocks"`, how many
                blocks are removed; `"sparsity"`; `"way"`, the number of a way to quantize; `"round_to"` in place of the
                target's; `"epochs"`, how long it is trained, and `"after"`, the trial that it begins from, whose file
                of 4 bits grows by `"more_bytes"` for layers that keep 8.

        Raises:
            ValueError: nothing is so small.
        """
        blocks = self.blocks[: settings["num_blocks"]] if settings.get("num_blocks") else ()
        quantization, quantize_aware = self.ways[settings.get("way", 0)]
        widths = self._widths(self._maker.variant(blocks), blocks, settings)
        candidate = Candidate(widths, blocks, settings.get("sparsity", 0.0), quantization, quantize_aware)
        if not candidate.is_whole:
            candidate = replace(candidate, epochs=self._epochs(settings))
        if "more_bytes" in settings and not scheme_of(quantization).layers:
            return self._maker.with_wider_layers(
                candidate, self._files.weights(settings["after"]), settings["more_bytes"]
            )
        return candidate

    def _epochs(self, settings: Mapping[str, Any]) -> tuple[int, ...]:
        before = self._journal.trials[settings["after"]].candidate if "after" in settings else None
        own = settings.get("epochs", 0)
        return (*(before.epochs if before is not None else ()), *([own] if own else ()))

    def _widths(self, variant: Variant, blocks: tuple[str, ...], settings: Mapping[str, Any]) -> dict[str, int]:
        if "keep" in settings:
            counts = {group.name: group.count for group in variant.free_groups}
            kept = {name: max(1, round(settings["keep"].get(name, 1.0) * count)) for name, count in counts.items()}
            return {name: width for name, width in kept.items() if width < counts[name]}
        asked: tuple[str, float] | Limits
        if "within" in settings:
            asked = self._limits(settings["within"])
        else:
            share = settings.get("target_macs", 1.0) * self.whole.graph.macs / variant.graph.macs
            if share >= 1:
                return {}
            asked = ("target_macs", share)
        weighed_by = settings.get("weighed_by", "l2")
        scope: Any = self._curves_of(variant, blocks) if weighed_by == "curves" else None
        scope = scope or {"l2": "global", "local": "local"}[weighed_by]
        plan = plan_graph(variant.graph, asked, scope=scope, round_to=self._round_to(settings))
        return variant.widths(plan.kept_mask)

    def _round_to(self, settings: Mapping[str, Any]) -> int | str:
        """What widths are rounded to: the target's multiple, or a finer one where no group has as many channels."""
        round_to = settings.get("round_to", self._target.round_to)
        widest = max(map(width_of, self.whole.free_groups), default=1)
        if isinstance(round_to, str):
            if widest > _FINER_WIDTHS:
                return round_to
            round_to = _FINER_WIDTHS
        while round_to >= widest > 1:
            round_to //= 2
        return round_to

    def _limits(self, share: float) -> Limits:
        """The limits on costs that a plan of widths can hold, of which only a share is used up."""
        limits, device = self._maker.work.budget.limits, self._target
        name = scheme_of(self.ways[0][0]).name
        given: dict[str, Any] = {}
        if "max_latency_ms" in limits:
            given["target_latency"] = f"{limits['max_latency_ms'] * share} ms"
        if "max_ram" in limits:
            given["max_ram"] = int(limits["max_ram"] * share)
        if flash := limits.get("max_flash", limits.get("max_size")):
            given["max_flash"] = int(flash * share)
        return Limits(**given, device=device, quantization=name)

    @property
    def can_plan_within(self) -> bool:
        """Whether there is a limit that a plan of widths can hold."""
        names = {"max_latency_ms", "max_ram", "max_flash", "max_size"}
        return bool(names & set(self._maker.work.budget.limits)) and self.ways[0][0] in self._target.quantizations

    @property
    def _num_epochs(self) -> int:
        work = self._maker.work
        return work.settings.epochs if work.is_training else 0

    @property
    def _target(self) -> Target:
        return self._maker.work.settings.target

    def _curves_of(self, variant: Variant, blocks: tuple[str, ...]) -> Sensitivity:
        """How the outputs move as each group alone loses channels, after the layers that read it are solved again."""
        if blocks not in self._curves:
            work = self._maker.work
            curves = sensitivity(
                variant.model,
                taken(work.judged.x, self._maker.quick_rows),
                metric="distance",
                reconstruct=work.unlabelled,
                batch_size=work.settings.batch_size,
                seed=work.settings.seed,
                cache=self._cache,
            )
            if not blocks:
                self._journal.guide_by(curves)
            self._curves[blocks] = curves
        return self._curves[blocks]


def ways_of(
    quantization: Quantization | Scheme | Literal["auto"] | None | Sequence[Quantization | Scheme | None],
    device: Target,
    is_training: bool,
    is_size_limited: bool = False,
) -> tuple[Way, ...]:
    """How the files of a search may be quantized, the preferred way first.

    Args:
        quantization: a name, a `Scheme`, None for float32, several of these, or `"auto"`: the target's own, and for one
            of int8 what loses less where that loses too much.
        device: the target.
        is_training: whether models are trained, so that they may be trained for the rounding.
        is_size_limited: whether `"auto"` has weights of 4 bits too, which are smaller, and no faster: runtimes unpack
            them to 8.

    Raises:
        ValueError: there is no such quantization, the target does not run it, or there is none.

    Example:
        >>> from edgeprune.targets import target
        >>> ways_of("auto", target("cortex-m"), is_training=True)
        (('int8', False), ('int8', True), ('int16x8', False))
    """
    if isinstance(quantization, str) and quantization == AUTO:
        first = device.quantizations[0]
        others = ("int16x8", *(["int4"] if is_size_limited else []))
        more = [one for one in others if one in device.quantizations] if first == "int8" else []
        asked: Sequence[Any] = [first, *more]
    elif isinstance(quantization, list | tuple):
        asked = quantization
    else:
        asked = [quantization]
    if not asked:
        raise ValueError("quantization is empty: pass at least one.")
    ways: list[Way] = []
    for one in asked:
        scheme = scheme_of(one)
        name = scheme.name
        if name not in device.quantizations:
            runs = ", ".join(map(repr, device.quantizations))
            raise ValueError(f"{device.name!r} does not run models in {name or 'float32'}; it runs {runs}.")
        device.check_float_layers(scheme)
        if one == "int4" and device.four_bit_operators(per_channel_dense=False) > device.four_bit_operators():
            one = replace(scheme, per_channel_dense=False)  # with more scales it has no dense layers of 4 bits
        ways.append((one, False))
        if is_training and name in _TRAINED_FOR:
            ways.append((one, True))
    return tuple(ways)
