"""The counterpart of `tensorflow_model_optimization.quantization.keras`, for both Kerases.

The engine is that of `edgeprune.quantize_aware`. What a scheme is made of in TF-MOT (configurations of layers,
quantizers, registries, transformations of the graph) is not here: a scheme names its bits, and the engine knows the
layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.lazy import lazy_names
from edgeprune.tfmot.quantization.keras import collab_opts, default_8bit, experimental

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.tfmot.quantization.keras.quantize import quantize_annotate_layer as quantize_annotate_layer
    from edgeprune.tfmot.quantization.keras.quantize import quantize_annotate_model as quantize_annotate_model
    from edgeprune.tfmot.quantization.keras.quantize import quantize_apply as quantize_apply
    from edgeprune.tfmot.quantization.keras.quantize import quantize_model as quantize_model
    from edgeprune.tfmot.quantization.keras.quantize import quantize_scope as quantize_scope

_FUNCTIONS = (
    "quantize_annotate_layer",
    "quantize_annotate_model",
    "quantize_apply",
    "quantize_model",
    "quantize_scope",
)
# What TF-MOT has besides; each is about how its own engine sees a layer.
_NOT_HERE = (
    *("QuantizeConfig", "QuantizeLayoutTransform", "QuantizeRegistry", "QuantizeScheme", "QuantizeWrapper"),
    *("QuantizeWrapperV2", "fix_input_output_range", "graph_transformations", "quantizers", "remove_input_range"),
)

__all__ = [*_FUNCTIONS, "collab_opts", "default_8bit", "experimental"]

_find, __dir__ = lazy_names(__name__, dict.fromkeys(_FUNCTIONS, f"{__name__}.quantize"))

if not TYPE_CHECKING:  # a type checker reports names that are not above

    def __getattr__(name: str) -> Any:
        if name in _NOT_HERE:
            raise AttributeError(
                f"edgeprune has no counterpart of TF-MOT's {name}: its engine knows the layers, and bits are named by "
                "a scheme, as in edgeprune.quantize_aware(model, edgeprune.Scheme(4, 8), ignore=[...])."
            )
        return _find(name)
