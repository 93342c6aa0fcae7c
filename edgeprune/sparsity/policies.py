"""Policies: which layers of a model to prune, and whether a model is fit for what the policy is after.

    model = ep.prune_low_magnitude(model, schedule, pruning_policy=ep.PruneForLatencyOnXNNPack())

A policy of one's own derives from `PruningPolicy`, which is TF-MOT's own class, and works on both Kerases.
"""

from __future__ import annotations

from typing import Any

from edgeprune import flavor
from edgeprune.sparsity.xnnpack import xnnpack_misses
from edgeprune.sparsity.xnnpack.geometry import is_convolution

# TF-MOT's interface of a layer that says what is prunable in it; its method `get_prunable_weights` alone is enough.
PrunableLayer = flavor.import_tfmot().sparsity.keras.PrunableLayer
PruningPolicy = flavor.import_tfmot().sparsity.keras.PruningPolicy


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prune only the 1x1 convolutions, in a model that XNNPACK's sparse inference can run.

    Sparse inference needs a float model (float32 or float16), more than two thirds of zeros over the 1x1
    convolutions (prune to 0.7 or more) and a processor on which XNNPACK takes its sparse path: Arm, and x86
    without AVX. The structure is checked here, by `xnnpack_misses`.

    Against TF-MOT's policy of the same name it also reads Keras 3 models and nested models, lists every
    miss at once, and is stricter where TFLite or XNNPACK would fall back to dense: an activation
    inside a convolution, a ReLU that is not one operator, a constant added or multiplied, a transposed
    convolution, a `ZeroPadding2D` with two readers, and a last pooling without `keepdims=True`.

    Source: Elsen et al., "Fast Sparse ConvNets", https://arxiv.org/abs/1911.09723.

    Example:
        >>> import keras
        >>> PruneForLatencyOnXNNPack().allow_pruning(keras.layers.Conv2D(8, 1))
        True
    """

    def allow_pruning(self, layer: Any) -> bool:
        """Whether the layer is a 1x1 Conv2D, of either Keras."""
        if not flavor.is_layer(layer):
            return False
        return is_convolution(layer, flavor.keras_of(layer).layers) and layer.kernel_size == (1, 1)

    def ensure_model_supports_pruning(self, model: Any) -> None:
        """Check that XNNPACK's sparse inference can run the model.

        Args:
            model: a built Functional or Sequential model of either Keras.

        Raises:
            ValueError: it cannot. The message names every layer in the way with the change that would
                satisfy XNNPACK; or the model is subclassed or not built.
        """
        misses = xnnpack_misses(model)
        if not misses:
            return
        adaptable = sum(miss.adaptable for miss in misses)
        lines = [f"- {miss}" for miss in misses]
        if adaptable:
            lines.append(
                f"`edgeprune.adapt_for_xnnpack(model)` mends {adaptable} of these {len(misses)} without "
                "changing what the model computes."
            )
        raise ValueError(f"Model {model.name!r} does not fit PruneForLatencyOnXNNPack:\n" + "\n".join(lines))
