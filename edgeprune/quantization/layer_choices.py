"""What each choice of bits for a layer's weights costs: the error of a simulated file's outputs, and bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.depth.bypass import walkable
from edgeprune.quantization.fake_quantize import QuantizedLayerLogic, quantized_layers
from edgeprune.quantization.kinds import kernel_axes, reads_four_bits
from edgeprune.quantization.simulated_file import SimulatedFile, outputs_of
from edgeprune.schemes import FLOAT_BITS, Scheme
from edgeprune.types import Model


class LayerChoices:
    """A simulated file, in which a layer has 4 bits, 8, or is in floats.

    Args:
        model: a float model.
        samples: input name to samples `(samples, ...)`.
        with_floats: whether a layer may be in floats.

    Attributes:
        wrappers: the layers with kernels, in the order of the graph.
        free: of them those that have a choice.
        bits: int array (free layers, choices), the bits of each choice: fewest first. A layer whose operators do not
            read 4 bits has 8 twice.
        more_bytes: int array like it, the bytes above those of the first choice.
        all_eight, all_four: the errors of the outputs where all have 8 bits, and where all have 4 that can.

    Raises:
        ValueError: the model cannot be followed, or has no kernel to round.
    """

    def __init__(self, model: Model, samples: Mapping[str, np.ndarray], with_floats: bool = False) -> None:
        self._float_model, self._samples = model, samples
        self._wanted = outputs_of(walkable(model), samples)
        self._file = SimulatedFile(model, Scheme(4, 8), samples)
        self.wrappers = quantized_layers(self._file.model)
        self._names = _names(self._file.model, self.wrappers)
        self.free = [
            one for one in self.wrappers if reads_four_bits(one.layer) or (with_floats and kernel_axes(one.layer))
        ]
        more = [FLOAT_BITS] if with_floats else []
        bits = [[4 if reads_four_bits(one.layer) else 8, 8, *more] for one in self.free]
        self.bits = np.array(bits, int).reshape(len(self.free), 2 + len(more))
        stored = np.array([self.count(one) for one in self.free], int)[:, None] * self.bits // 8
        self.more_bytes = stored - stored[:, :1]
        self.all_eight, self.all_four = (self._simulated(self.bits[:, choice]) for choice in (1, 0))

    @property
    def kernels(self) -> list[list[np.ndarray]]:
        """For each layer that has a choice the integers of its kernels in 8 bits."""
        for one in self.free:
            one.num_bits = 8
        return [[one.integers(name) for name in one.kernel_axes] for one in self.free]

    def name(self, wrapper: QuantizedLayerLogic) -> str:
        """The path name of a layer in the float model."""
        return self._names[id(wrapper)]

    def count(self, wrapper: QuantizedLayerLogic) -> int:
        """How many weights a layer's kernels have."""
        return sum(int(np.prod(wrapper.kernel(name).shape)) for name in wrapper.kernel_axes)

    def error(self, chosen: np.ndarray) -> float:
        """The error of the outputs with the choices of these numbers: int array (free layers,)."""
        bits = self._bits_of(chosen)
        is_all_floats = len(bits) == len(self.wrappers) and (bits == FLOAT_BITS).all()  # which leaves none to round
        if FLOAT_BITS not in bits or is_all_floats:
            return self._simulated(bits)
        # Between layers in floats nothing is rounded, which is another model.
        return SimulatedFile(self._float_model, self.scheme(chosen), self._samples).error(self._samples, self._wanted)

    def added_errors(self, say: Callable[[str], None] = lambda text: None) -> np.ndarray:
        """What the error changes by where one layer alone has a choice and all others 8 bits: (free layers, choices).

        Of fewer bits it grows, of floats it falls, or does not change.
        """
        added = np.zeros(self.bits.shape)
        eight = np.full(len(self.free), 8)
        for layer, row in enumerate(self.bits):
            say(f"Measuring layer {layer + 1} of {len(self.free)}")
            for choice, bits in enumerate(row):
                if bits != 8:
                    change = self._simulated(np.where(np.arange(len(eight)) == layer, bits, eight)) - self.all_eight
                    added[layer, choice] = max(change, 0.0) if bits < 8 else min(change, 0.0)
        return added

    def scheme(self, chosen: np.ndarray) -> Scheme:
        """The scheme of choices."""
        bits = self._bits_of(chosen).tolist()
        most = 4 if 4 in bits else 8
        others = zip(self.free, bits, strict=True)
        return Scheme(
            most, 8, layers={self.name(one): own for one, own in others if own != most and self._has_choice(one, own)}
        )

    def _has_choice(self, wrapper: QuantizedLayerLogic, bits: int) -> bool:
        return bits == FLOAT_BITS or reads_four_bits(wrapper.layer)

    def _bits_of(self, chosen: np.ndarray) -> np.ndarray:
        return self.bits[np.arange(len(self.free)), chosen]

    def _simulated(self, bits: np.ndarray) -> float:
        """The error of the outputs where these layers alone have these bits, each in floats on its own."""
        for one, own in zip(self.free, bits.tolist(), strict=True):
            one.num_bits, one.rounds = min(own, 8), own != FLOAT_BITS
            if one.before_activation is not None:
                one.before_activation.rounds = one.rounds
        return self._file.error(self._samples, self._wanted)


def _names(model: Model, wrappers: Sequence[QuantizedLayerLogic]) -> dict[int, str]:
    """By `id` of a layer that rounds kernels the path name of the layer in it, in the float model."""
    names: Mapping[int, Any] = flavor.layer_names(model)
    return {id(one): names[id(one)].removesuffix(one.name) + one.layer.name for one in wrappers}
