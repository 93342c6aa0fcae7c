"""Functions in the graph: operations of Keras 3 (`keras.ops`) and function layers of `tf_keras` (`tf.*`).

The names are those of `flavor.function_name`: without module, lower case, without underscores.
"""

from __future__ import annotations

from edgeprune import flavor
from edgeprune.channels.rules.registry import Call, function_rule
from edgeprune.channels.values import Value

_EACH_ELEMENT = (
    "absolute abs fabs add addv2 arccos arccosh arcsin arcsinh arctan arctan2 arctanh acos acosh asin asinh atan "
    "atanh bitwiseand bitwiseor bitwisexor cast ceil celu clip clipbyvalue cos cosh copy divide divideonan "
    "dividenonan div elu equal erf erfc exp exp2 expm1 floor floordiv floordivide floormod fmax fmin gelu greater "
    "greaterequal hardshrink hardsigmoid hardsilu hardswish hardtanh identity isfinite isinf isnan leakyrelu less "
    "lessequal log log10 log1p log2 logaddexp logicaland logicalnot logicalor logicalxor logsigmoid maximum "
    "minimum mod multiply multiplynonan mul nantonum neg negative notequal oneslike pow power real realdiv "
    "reciprocal relu relu6 round rsqrt saturatecast selu sigmoid sign silu sin sinh softplus softshrink softsign "
    "sparseplus sparsesigmoid sqrt square squareddifference squareplus stopgradient sub subtract swish tan tanh "
    "tanhshrink threshold truediv truedivide trunc where wherev2 zeroslike"
).split()


def operands(call: Call) -> list[Value]:
    """The tensors a function takes, constants among them."""
    values = []
    for leaf in flavor.flatten((list(call.args), call.kwargs), call.layer):
        if isinstance(leaf, Value):
            values.append(leaf)
        elif not isinstance(leaf, str | type) and hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            values.append(Value(tuple(int(size) for size in leaf.shape)))
    return values


@function_rule(*_EACH_ELEMENT)
def each_element(call: Call) -> Value:
    """Channels that meet live and die together."""
    return call.space.merge(
        operands(call), f"{call.name} joins it with a tensor whose channels cannot be dropped", call.output_shapes[0]
    )
