"""The rules: what each kind of layer does with channels. One file for each family."""

from edgeprune.channels.graph.rules import (  # noqa: F401
    applications,
    attention,
    elementwise,
    functions,
    keras_hub,
    kernels,
    movement,
    movement_functions,
    normalization,
    own_weights,
    preprocessing,
    product_functions,
    recurrent,
)
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, function_rule, is_composite, rule, rule_for
from edgeprune.channels.graph.rules.weight_axes import axes_rule

__all__ = ["Call", "CannotFollow", "axes_rule", "function_rule", "is_composite", "rule", "rule_for"]
