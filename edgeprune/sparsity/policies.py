"""Policies: which layers of a model to prune, and whether a model is fit for what the policy is after.

    model = ep.prune_low_magnitude(model, schedule, pruning_policy=ep.PruneForLatencyOnXNNPack())

A policy of one's own derives from `PruningPolicy`, which is TF-MOT's own class, and works on both Kerases.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from edgeprune import flavor
from edgeprune.sparsity.xnnpack.geometry import is_convolution
from edgeprune.sparsity.xnnpack.misses import MissesByPlace, XnnpackMiss, misses_by_place
from edgeprune.types import Layer, Model

if TYPE_CHECKING:
    from tensorflow_model_optimization.sparsity import keras as _tfmot
else:
    _tfmot = flavor.import_tfmot().sparsity.keras

PrunableLayer = _tfmot.PrunableLayer
"""The base class of layers that say what can be pruned in them, which is TF-MOT's own.

`get_prunable_weights()` returns a list of their weights. The method alone is enough: a layer need not be of this class.
"""
PruningPolicy = _tfmot.PruningPolicy
"""The base class of pruning policies, which is TF-MOT's own.

A custom one overrides `allow_pruning(layer)`, which returns whether a layer is pruned, and
`ensure_model_supports_pruning(model)`, which raises `ValueError` for a model that it refuses.
"""


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prune only the 1x1 convolutions, in a model that XNNPACK's sparse inference can run.

    Sparse inference needs a float model (float32 or float16), more than two thirds of zeros over the 1x1
    convolutions (prune to 0.7 or more) and a processor on which XNNPACK uses its sparse path: Arm, and x86
    without AVX. The structure is checked here, by `xnnpack_misses`.

    It accepts what TF-MOT's policy of the same name accepts, Keras 3 models and nested models as well, and refuses with
    TF-MOT's messages, followed by every miss at once. Where TFLite or XNNPACK would fall back to dense all the same, it
    warns: a last pooling without `keepdims=True`, a subtraction, a constant added or multiplied, an activation inside a
    convolution, a ReLU that is not one operator, a `ZeroPadding2D` with two readers, odd sizes. A transposed
    convolution is refused.

    Source: Elsen et al., "Fast Sparse ConvNets", https://arxiv.org/abs/1911.09723.

    Example:
        >>> import keras
        >>> PruneForLatencyOnXNNPack().allow_pruning(keras.layers.Conv2D(8, 1))
        True
    """

    def allow_pruning(self, layer: Layer) -> bool:
        """Whether the layer is a 1x1 Conv2D, of either Keras."""
        if not flavor.is_layer(layer):
            return False
        return is_convolution(layer, flavor.keras_of(layer).layers) and layer.kernel_size == (1, 1)

    def ensure_model_supports_pruning(self, model: Model) -> None:
        """Check that XNNPACK's sparse inference can run the model; warn of what TF-MOT accepts and XNNPACK does not.

        Args:
            model: a built Functional or Sequential model of either Keras.

        Raises:
            ValueError: it cannot. The notes of the error name every layer that prevents it with the change that would
                satisfy XNNPACK; or the model is subclassed or not built.
        """
        if not model.built:
            raise _error(
                "Unbuilt models are not supported currently.",
                f"Model {model.name!r} is not built: call it on an example, or add an Input.",
            )
        misses = misses_by_place(model)
        if not misses.all:
            return
        message, listing = self._refusal(misses), _listing(model, misses.all)
        if message is not None:
            raise _error(message, listing)
        warnings.warn(listing)

    def _refusal(self, misses: MissesByPlace) -> str | None:
        """TF-MOT's message for the first miss that it does not accept; None where it accepts all."""
        if _refused(misses.start):
            return (
                "Could not find `Conv2D 3x3` layer with stride 2x2, `input filters == 3` and `VALID` padding and "
                "preceding `ZeroPadding2D` with `padding == 1` in all input branches of the model"
            )
        if misses.end:
            return "Could not find a `GlobalAveragePooling2D` layer in all output branches"
        refused = _refused(misses.middle)
        return (
            f"Layer {refused[0].kind} is not supported for the {type(self).__name__} pruning policy"
            if refused
            else None
        )


def _refused(misses: tuple[XnnpackMiss, ...]) -> list[XnnpackMiss]:
    return [miss for miss in misses if not miss.tolerated]


def _error(message: str, note: str) -> ValueError:
    """An error that says what TF-MOT's says, so that what matches on it still works, and more in a note."""
    error = ValueError(message)
    error.add_note(note)
    return error


def _listing(model: Model, misses: tuple[XnnpackMiss, ...]) -> str:
    """A line for each miss, and what can be done about all of them."""
    lines = [f"Model {model.name!r} would not run on XNNPACK's sparse inference:", *(f"- {miss}" for miss in misses)]
    adaptable = sum(miss.adaptable for miss in misses)
    if adaptable:
        lines.append(
            f"`edgeprune.adapt_for_xnnpack(model)` mends {adaptable} of these {len(misses)} without "
            "changing what the model computes."
        )
    return "\n".join(lines)
