"""Functions in the graph that are products of tensors, summed over what they share."""

from __future__ import annotations

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Value
from edgeprune.channels.graph.rules.functions import operands
from edgeprune.channels.graph.rules.registry import Call, CannotFollow, function_rule


@function_rule("matmul", "batchmatmul", "batchmatmulv2", "dot")
def matmul(call: Call) -> Value:
    """Rows of one times columns of the other."""
    a, b = _pair(call)
    if flavor.function_name(call.layer) == "dot" and b.rank > 2 or a.rank < 2 or b.rank < 2:
        raise CannotFollow("a product of tensors of these ranks is not supported")
    letters = "abcdefghijklmnopqrstuvw"
    rank = max(a.rank, b.rank)
    left, right = list(letters[rank - a.rank : rank - 2] + "xy"), list(letters[rank - b.rank : rank - 2] + "yz")
    if call.argument("transpose_a", "adjoint_a") or call.argument("adjoint_a"):
        left[-2:] = left[-1], left[-2]
    if call.argument("transpose_b", "adjoint_b") or call.argument("adjoint_b"):
        right[-2:] = right[-1], right[-2]
    return contraction(call, [a, b], ["".join(left), "".join(right)], letters[: rank - 2] + "xz")


@function_rule("einsum")
def einsum(call: Call) -> Value:
    """Any sum of products."""
    equation = call.argument("subscripts", "equation").replace(" ", "")
    values = operands(call)
    terms, arrow, result = equation.partition("->")
    terms = terms.split(",")
    if not arrow or len(terms) != len(values):
        raise CannotFollow("its equation does not name its output")
    spread = max(v.rank - len(t.replace("...", "")) for v, t in zip(values, terms, strict=True))
    hidden = "0123456789"[:spread] if "..." in equation else ""
    written = []
    for value, term in zip(values, terms, strict=True):
        own = value.rank - len(term.replace("...", ""))
        written.append(term.replace("...", hidden[len(hidden) - own :]))
    return contraction(call, values, written, result.replace("...", hidden))


def _pair(call: Call) -> tuple[Value, Value]:
    values = operands(call)
    if len(values) != 2:
        raise CannotFollow("it is no product of two tensors")
    return values[0], values[1]


def contraction(call: Call, values: list[Value], terms: list[str], result: str) -> Value:
    """A sum of products: equal letters live and die together, letters that are not in the result are summed over.

    Where a part could lie along several axes (heads or their depth), it lies along one that all factors share.
    """
    for value, term in zip(values, terms, strict=True):
        for part in value.parts:
            axes = [axis for axis, size in enumerate(call.space.narrowed(part).shape) if size > 1]
            if len(axes) > 1:
                shared = [axis for axis in axes if all(term[axis] in t for t in [*terms, result])]
                call.line(value, (shared or axes)[-1])
    lines: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    for value, term in zip(values, terms, strict=True):
        for axis, letter in enumerate(term):
            if value.shape[axis] > 1:
                line = call.line(value, axis)
                if letter in sizes:
                    call.unite(lines.get(letter), line)
                sizes[letter] = value.shape[axis]
                if line is not None:
                    lines[letter] = line
    call.mixes(*(line for letter, line in lines.items() if letter not in result))
    call.count_macs(1, *(lines.get(letter, size) for letter, size in sizes.items()))
    return call.output({axis: lines.get(letter) for axis, letter in enumerate(result)})
