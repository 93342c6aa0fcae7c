"""How long a file takes by the bits of its layers' weights: from the operators of the file in 8 bits, and in 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.latency.cost import OperatorCosts
from edgeprune.latency.template import FileTemplate
from edgeprune.tflite.four_bits import READ_FOUR_BITS, with_four_bit_weights

_AS_IT_IS = np.zeros(0, np.int64)  # the counts of a file without lines
_LARGEST = 127


@dataclass(frozen=True, eq=False)
class LayerTimes:
    """The time of a file, and of the operators that read each layer's weights.

    Attributes:
        whole: of the file with all weights in 8 bits.
        eight: (layers,), of it what each layer's operators take.
        four: (layers,), the same in 4 bits, of the file with all weights in 4 bits.
    """

    whole: float
    eight: np.ndarray
    four: np.ndarray

    def total(self, narrow: np.ndarray) -> float:
        """The time where these layers have 4 bits: bool array."""
        return self.whole + float((self.four - self.eight)[narrow].sum())


def layer_times(
    wide: bytes, kernels: Sequence[Sequence[np.ndarray]], readers: frozenset[str], costs: OperatorCosts
) -> LayerTimes:
    """Find the operators of each layer, and what they cost in 8 and in 4 bits.

    An operator alone takes longer than in its file, by more where XNNPACK computes it, as it does few in 4 bits. So the
    times in 8 bits are scaled to add up to the file in 8 bits, and those in 4 bits to the one in 4.

    Args:
        wide: the file with all weights in 8 bits.
        kernels: for each layer its kernels, on a grid of 8 bits. They are found in the file by their integers, which
            batch normalization that is folded into them does not change.
        readers: the operators that read weights of 4 bits on the device.
        costs: where the costs of operators come from.
    """
    eight = FileTemplate([wide], _AS_IT_IS[None])
    four = FileTemplate([with_four_bit_weights(wide, readers, nearest=True)[0]], _AS_IT_IS[None])
    nothing, places = costs.of_nothing(), _places(eight, kernels)
    alone = _of_operators(eight, costs)
    whole = _of_file(eight, costs, alone)
    alone *= _scale(whole - nothing, float(alone.sum()))
    wide_times = _of_layers(alone, places)
    alone = _of_operators(four, costs)
    narrow_times = _of_layers(alone, places)
    others = whole - nothing - float(wide_times.sum())  # which read no weights of 4 bits
    own = _of_file(four, costs, alone) - nothing - others
    return LayerTimes(whole, wide_times, narrow_times * _scale(own, float(narrow_times.sum())))


def _of_file(template: FileTemplate, costs: OperatorCosts, alone: np.ndarray) -> float:
    """The time of a whole file; what its operators add up to where it is not known."""
    found = costs.of_model(template, [_AS_IT_IS])
    return float(alone.sum()) + costs.of_nothing() if found is None else float(found[0])


def _scale(wanted: float, given: float) -> float:
    return wanted / given if wanted > 0 and given > 0 else 1.0


def _of_layers(times: np.ndarray, places: Sequence[Sequence[int]]) -> np.ndarray:
    """The times of operators, added up for each layer."""
    return np.array([times[list(of_layer)].sum() for of_layer in places])


def _of_operators(template: FileTemplate, costs: OperatorCosts) -> np.ndarray:
    """The cost of each operator, without what a file costs that does nothing; of those that do not run alone zero."""
    alone = [place for place, operator in enumerate(template.operators) if operator.alone]
    times = np.zeros(len(template.operators))
    found = costs.of_operators(template, [(place, _AS_IT_IS) for place in alone])
    times[alone] = np.maximum(found - costs.of_nothing(), 0.0)
    return times


def _places(template: FileTemplate, kernels: Sequence[Sequence[np.ndarray]]) -> list[list[int]]:
    """The numbers of each layer's operators: those that read the weights whose integers are nearest to its kernels'."""
    readers: dict[int, list[int]] = {}  # weight to the operators that read it
    for place, operator in enumerate(template.operators):
        if operator.name in READ_FOUR_BITS and template.tensors[operator.inputs[1]].data is not None:
            readers.setdefault(operator.inputs[1], []).append(place)
    stored = {number: _spread(np.asarray(template.tensors[number].data).view(np.int8)) for number in readers}
    wanted = [(layer, _spread(kernel)) for layer, own in enumerate(kernels) for kernel in own]
    pairs = sorted(
        (float(np.abs(spread - other).sum()), layer, one, number)
        for one, (layer, spread) in enumerate(wanted)
        for number, other in stored.items()
        if spread.sum() == other.sum()
    )
    places: list[list[int]] = [[] for _ in kernels]
    done, used = set(), set()
    for _, layer, one, number in pairs:
        if one not in done and number not in used:
            places[layer] += readers[number]
            done.add(one)
            used.add(number)
    return places


def _spread(integers: np.ndarray) -> np.ndarray:
    """How many weights have each magnitude."""
    return np.bincount(np.abs(integers.astype(int)).ravel(), minlength=_LARGEST + 2)
