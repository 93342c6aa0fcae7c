"""The weights of 4 bits that a float model gets in its file, solved on its representative samples."""

from __future__ import annotations

import dataclasses

from edgeprune import strip
from edgeprune.export.prepared import PreparedModel
from edgeprune.quantization.rounding import round_weights
from edgeprune.schemes import Scheme


def rounded(prepared: PreparedModel, scheme: Scheme) -> PreparedModel:
    """A prepared model with its weights on the grids of a scheme; the same where none has 4 bits.

    A quantization-aware model rounds its weights itself.

    Raises:
        ValueError: the model cannot be followed, or a pattern of the scheme fits no layer.
    """
    if not scheme.has_four_bits or strip.is_quantize_aware(prepared.model):
        return prepared
    found = round_weights(prepared.model, prepared.samples or {}, scheme)
    note = (
        f"Weights of 4 bits: solved on {found.num_samples:,} samples, an error of the outputs of {found.after:.1%}; "
        f"at their nearest steps it is {found.before:.1%}."
    )
    return dataclasses.replace(prepared, in_file=found.model, notes=(*prepared.notes, note))
