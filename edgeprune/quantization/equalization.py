"""Cross-layer equalization: channels of a tensor get like ranges, so that eight bits serve all of them.

    equalized = ep.equalize(model, x[:200])
    print(equalized)
    ep.export_tflite(equalized.model, "model.tflite", "int8", x[:200])

An integer file has one scale for all channels of a tensor: where one reaches 100 and another 0.1, the second has no
steps left. As ReLU lets positive factors through, a channel may be multiplied by a factor where it is made and divided
by it where it is read; the function does not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.ids import Ids
from edgeprune.channels.graph.trace import garbage_collection_off, trace
from edgeprune.channels.rebuild.proof import on_random_inputs, tolerance_of
from edgeprune.data.batches import batches_of
from edgeprune.data.ports import input_shapes
from edgeprune.data.tensors import input_tensors
from edgeprune.quantization.channel_ranges import estimated_ranges, measured_ranges
from edgeprune.quantization.channel_scales import DEPTHWISE, ChannelScales
from edgeprune.quantization.scaled_weights import input_matrices, scaled_weights
from edgeprune.text_table import text_table
from edgeprune.types import AnyTensor, DataLike, Model, Variable

_SWEEPS = 8  # a factor changes what the others of its tensor are compared with
_COMPARED = 8  # batches at most
_SMALLEST = 1e-4  # of a tensor's largest channel: what is smaller counts as this


@dataclass(frozen=True)
class EqualizedChannels:
    """Channels that were scaled together, as they share tensors.

    Attributes:
        layers: the path names of the layers that make them.
        channels: how many have a factor.
        use_before: how much of their tensors' range the channels used, from 0 to 1: the mean of each channel's largest
            magnitude over that of its tensor.
        use_after: the same with the factors.
        smallest_factor: the smallest factor.
        largest_factor: the largest.
    """

    layers: tuple[str, ...]
    channels: int
    use_before: float
    use_after: float
    smallest_factor: float
    largest_factor: float


@dataclass(frozen=True)
class Equalization:
    """What `equalize` returns.

    Attributes:
        model: the new model.
        scaled: what was scaled.
        left_out: path name of a layer to the reason why the channels that it makes have no factor.
        difference: the largest difference of the new model's outputs over the largest output, on random inputs; on the
            data where channels of a bounded ReLU are scaled.
        measured: whether ranges were measured on data rather than estimated from the weights.
    """

    model: Any = field(repr=False, compare=False)
    scaled: tuple[EqualizedChannels, ...]
    left_out: dict[str, str]
    difference: float
    measured: bool

    def __str__(self) -> str:
        """A table of what was scaled, and the reasons for the rest."""
        how = "measured on data" if self.measured else "estimated from the weights"
        lines = [f"Equalization: {sum(row.channels for row in self.scaled):,} channels scaled, ranges {how}"]
        if self.scaled:
            rows = [
                [
                    ", ".join(row.layers),
                    f"{row.channels:,}",
                    f"{row.use_before:.1%}",
                    f"{row.use_after:.1%}",
                    f"{row.smallest_factor:.3g} to {row.largest_factor:.3g}",
                ]
                for row in self.scaled
            ]
            lines.append(text_table(("made by", "channels", "range used", "after", "factors"), rows, left=(0, 4)))
        lines += [f"  not scaled: {name}: {reason}" for name, reason in self.left_out.items()]
        return "\n".join([*lines, f"  largest difference of the outputs: {self.difference:.2g} of the largest"])

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return {
            "scaled": [{**vars(row), "layers": list(row.layers)} for row in self.scaled],
            "left_out": dict(self.left_out),
            "difference": self.difference,
            "measured": self.measured,
        }


def equalize(
    model: Model, data: DataLike | None = None, *, batch_size: int = 32, steps: int | None = None
) -> Equalization:
    """Scale channels so that those of one tensor have like ranges, without changing what the model computes.

    For files in integers, `"int8"` above all, of models whose channels differ widely in size. The factors go through
    ReLU, LeakyReLU, PReLU, pooling, padding, dropout, additions, concatenations and reshaping, into and out of dense
    layers and convolutions of every kind, embeddings and batch normalizations. They stop at other activations (swish,
    sigmoid), at the inputs and the outputs of the model, and at layers that are unknown. Of a bounded ReLU, as ReLU6,
    those channels are scaled whose values stay below the bound on `data`, and only so far that values a quarter larger
    would stay below it too: beyond, the function is another one.

    Args:
        model: a built model of `keras` 3 or `tf_keras`: Functional, Sequential, or subclassed with a call that can be
            followed. It is not changed.
        data: samples to measure ranges on, in any form that `model.fit` accepts; labels are not looked at. About 100
            do. Left out, ranges are estimated from the weights.
        batch_size: samples at once where `data` are arrays.
        steps: batches of `data` at most.

    Returns:
        The new model, of the same Keras, compiled as the one passed is; and what was scaled, or why not.

    Raises:
        TypeError: `model` is no Keras model, or the data are in no known form.
        ValueError: the model is not built, carries pruning wrappers, is quantization-aware or quantized by Keras, has
            LoRA, or cannot be followed; or the data do not fit it.
        RuntimeError: the new model computes something else.

    Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019

    Example:
        >>> equalized = equalize(model, x)
        >>> equalized.scaled[0].layers, equalized.scaled[0].channels
        (('stem',), 8)
        >>> bool(np.allclose(equalized.model.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5))
        True
    """
    flavor.check_model(model)
    flavor.check_kernels_can_be_rounded(model)
    if any(map(flavor.rounds_values, flavor.layers_of(model))):
        raise ValueError(
            f"Model {model.name!r} is quantization-aware, and has its ranges: equalize the float model, and call "
            "quantize_aware on the result."
        )
    graph = trace(model)
    scales = ChannelScales(graph, bounded=data is not None)
    held: list[list[AnyTensor]] = []
    if data is None:
        ranges = estimated_ranges(scales)
    else:
        shapes = input_shapes(graph.walked)
        read = (input_tensors(graph.walked, one.x) for one in batches_of(data, batch_size, steps, inputs=shapes))
        ranges = measured_ranges(scales, _holding(read, held))
        scales.freeze_capped(ranges)
    parts = _parts(scales, ranges)
    factors, most = np.ones(len(scales.roots)), scales.largest_factors(ranges)
    rows = []
    for part in parts:
        part.solve()
        part.factors = np.minimum(part.factors, most[part.roots])
        factors[part.roots] = part.factors
        rows.append(part.row())
    built = with_factors(scales, factors[scales.roots])
    difference = _difference(graph.walked, built, held if scales.caps else [])
    return Equalization(built, tuple(rows), _left_out(scales), difference, data is not None)


def with_factors(scales: ChannelScales, factors: np.ndarray) -> Any:
    """Build the model whose channels are multiplied by factors, and which computes the same.

    Args:
        scales: the nodes of a traced model.
        factors: the factor of each node: 1 for those that are frozen, one and the same for those that are united.

    Returns:
        A new model, compiled as the old one is.
    """
    graph = scales.graph
    new = {id(weight): values for call in scales.calls for weight, values in scaled_weights(call, factors)}
    with garbage_collection_off():
        built = flavor.Rebuilder(
            cut=partial(_replaced, new), renamed=graph.renamed, taken_names=graph.rebuilt_names.values()
        ).build(graph.walked)
        flavor.copy_compile_state(graph.model, built)
    return built


def _holding(batches: Iterable[list[AnyTensor]], held: list[list[AnyTensor]]) -> Iterator[list[AnyTensor]]:
    """The batches; the first ones are held."""
    for batch in batches:
        if len(held) < _COMPARED:
            held.append(batch)
        yield batch


def _replaced(new: dict[int, np.ndarray], weight: Variable) -> np.ndarray:
    values = flavor.array_of(weight)
    return new[id(weight)].astype(values.dtype) if id(weight) in new else values.copy()


def _left_out(scales: ChannelScales) -> dict[str, str]:
    """The layers none of whose channels have a factor, with the first reason."""
    reasons: dict[str, str] = {}
    for call in scales.calls:
        found = [] if call.outputs is None else [scales.frozen[node] for node in call.outputs.tolist()]
        if found and all(reason is not None for reason in found) and "is folded into" not in str(found[0]):
            reasons[scales.name_of(call.step)] = str(found[0])
    return reasons


def _difference(old: Model, new: Model, batches: list[list[AnyTensor]]) -> float:
    """The largest difference of two models' outputs over the largest output, on batches or else on random inputs.

    Raises:
        RuntimeError: it is more than rounding explains.
    """

    def compared(inputs: list[Any]) -> float:
        largest = 0.0
        for a, b in zip(flavor.call_model(old, inputs), flavor.call_model(new, inputs), strict=True):
            a, b = (np.asarray(one).astype(np.float64) for one in (a, b))
            largest = max(largest, float(np.abs(a - b).max(initial=0.0) / max(np.abs(a).max(initial=0.0), 1e-12)))
        return largest

    difference = max(map(compared, batches)) if batches else float(on_random_inputs(old, compared, small=True))
    if not difference <= tolerance_of(old):
        raise RuntimeError(
            f"The equalized model differs from {old.name!r} by {difference:.2g} of the largest output: report it."
        )
    return difference


class _Part:
    """Channels that are compared with each other, as they share tensors.

    Attributes:
        roots: a node of each of them.
        factors: for each its factor.
    """

    def __init__(self, scales: ChannelScales, ranges: np.ndarray, places: list[int], roots: np.ndarray) -> None:
        self._scales, self.roots = scales, roots
        self._numbers = {root: number for number, root in enumerate(roots.tolist())}
        self.factors = np.ones(len(roots))
        self._free = np.array([scales.frozen[root] is None for root in roots.tolist()])
        self._uses = self._used(ranges, places)
        self._reads = self._matrices()

    def _number(self, nodes: np.ndarray) -> np.ndarray:
        """The positions in `roots` of some nodes; -1 for those of another part."""
        return np.array([self._numbers.get(root, -1) for root in self._scales.roots[nodes].tolist()], int)

    def _used(self, ranges: np.ndarray, places: list[int]) -> np.ndarray:
        """For each channel the largest share that it has of the range of a tensor; 0 where it is always zero."""
        uses = np.zeros(len(self.roots))
        for place in places:
            nodes = self._scales.nodes(place)
            if nodes is not None and np.isfinite(ranges[nodes]).any():
                own = np.nan_to_num(ranges[nodes])
                np.maximum.at(uses, self._number(nodes), own / max(own.max(), 1e-30))
        return uses

    def _matrices(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The kernels that read these channels with one scale for several of them: positions, (inputs, outputs)."""
        found = []
        for call in self._scales.calls:
            if call.inputs is not None and call.kind not in DEPTHWISE:
                positions = self._number(call.inputs)
                for taken, _, matrix in input_matrices(call):
                    if (positions[taken] >= 0).all() and len(taken) > 1:
                        found.append((positions[taken], matrix))
        return found

    def solve(self) -> None:
        """Find the factors with which a channel's share of its tensor is that of its weights in what reads it.

        A channel that no kernel with one scale for several of them reads has its tensor's whole range.
        """
        live = self._free & (self._uses > 0)
        if live.sum() < 2:
            return
        before = self._uses[live].max()
        for _ in range(_SWEEPS):
            uses = self._clipped(self._uses * self.factors)
            shares = self._clipped(self._shares(), unread=1.0)
            known = self._shares() > 0
            step = np.where(known, np.sqrt(shares / uses), 1 / uses)
            self.factors = np.where(live, self.factors * step, 1.0)
            largest = (self._uses * self.factors)[live].max()
            self.factors[live] *= before / largest
        self.factors[self._free & ~live] = np.exp(np.log(self.factors[live]).mean())

    def _clipped(self, values: np.ndarray, unread: float = 0.0) -> np.ndarray:
        values = values / max(values.max(), 1e-30)
        return np.maximum(np.where((values == 0) & (unread > 0), unread, values), _SMALLEST)

    def _shares(self) -> np.ndarray:
        """For each channel the largest share that its weights have of an output's range; 0 where none reads it."""
        shares = np.zeros(len(self.roots))
        for positions, matrix in self._reads:
            scaled = matrix / self.factors[positions][:, None]
            ranges = np.maximum(scaled.max(axis=0), 1e-30)
            np.maximum.at(shares, positions, (scaled / ranges).max(axis=1))
        return shares

    def row(self) -> EqualizedChannels:
        """What is reported of it."""
        free = self._free
        makers = [
            self._scales.name_of(call.step)
            for call in self._scales.calls
            if call.outputs is not None and (self._number(call.outputs) >= 0).any()
        ]
        after = self._uses * self.factors
        return EqualizedChannels(
            layers=tuple(dict.fromkeys(makers)),
            channels=int(free.sum()),
            use_before=float(self._uses[free].mean() / max(self._uses.max(), 1e-30)),
            use_after=float(after[free].mean() / max(after.max(), 1e-30)),
            smallest_factor=float(self.factors[free].min()),
            largest_factor=float(self.factors[free].max()),
        )


def _parts(scales: ChannelScales, ranges: np.ndarray) -> list[_Part]:
    """The channels with a factor, in sets that share tensors."""
    count, places = len(scales.roots), range(len(scales.graph.tensors))
    shared = Ids()
    shared.fresh(count + len(places))
    for place in places:
        nodes = scales.nodes(place)
        if nodes is not None:
            shared.unite(scales.roots[nodes], np.array([count + place]))
    found = shared.find(np.arange(count + len(places)))
    of_places: dict[int, list[int]] = {}
    for place in places:
        of_places.setdefault(int(found[count + place]), []).append(place)
    parts = []
    for own in of_places.values():
        lines = [nodes for place in own if (nodes := scales.nodes(place)) is not None]
        roots = np.unique(np.concatenate([scales.roots[nodes] for nodes in lines])) if lines else np.zeros(0, int)
        if sum(scales.frozen[root] is None for root in roots.tolist()) > 1:
            parts.append(_Part(scales, ranges, own, roots))
    return parts
