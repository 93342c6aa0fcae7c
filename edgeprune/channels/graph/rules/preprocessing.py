"""Preprocessing layers: most of them stand before any channels; Normalization may stand behind some."""

from __future__ import annotations

from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.registry import Call, rule


@rule(
    *"IntegerLookup StringLookup TextVectorization Hashing HashedCrossing Discretization CategoryEncoding "
    "Normalization RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomCrop "
    "RandomHeight RandomWidth MelSpectrogram STFTSpectrogram Masking Pipeline AutoContrast Equalization Solarization "
    "RandomSaturation RandomHue RandomColorJitter RandomGrayscale RandomInvert RandomPosterization RandomSharpness "
    "RandomShear RandomErasing RandomGaussianBlur RandomPerspective RandomElasticTransform RandAugment MixUp CutMix "
    "AugMix MaxNumBoundingBoxes".split()
)
def preprocess(call: Call) -> list[Value]:
    """Inputs and outputs keep all their channels."""
    for value in call.inputs:
        call.freeze(value, f"{call.name} uses all of its values")
    return [Value(shape) for shape in call.output_shapes]
