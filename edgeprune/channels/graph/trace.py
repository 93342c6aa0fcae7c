"""From a model to its channels: every call is handed to its layer's rule, once, producers first."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from edgeprune import flavor
from edgeprune.channels.graph.channel_values import Space, Value, varying
from edgeprune.channels.graph.coupling import ChannelGraph, Cost, Group, Rescale, Resize, Slot, Step, Tensor
from edgeprune.channels.graph.rules import Call, CannotFollow, is_composite, rule_for
from edgeprune.flavor.example_shapes import InputShape, shapes_of_calls


def trace(model: Any, input_shape: InputShape = None) -> ChannelGraph:
    """Find which channels of a model live and die together.

    Args:
        model: a built model of `keras` 3 or `tf_keras`: Functional, Sequential, or one of Keras 3 that is subclassed
            and whose call can be made on symbolic inputs. It is not changed.
        input_shape: of a model of open length or size, the shape that its MACs are counted for; by input name where
            there are several. Left out, one that the model accepts.

    Returns:
        The classes of channels with the slices of the weights they own.

    Raises:
        TypeError: it is no Keras model.
        ValueError: it is not built, it carries pruning wrappers, or it is subclassed and its call cannot be followed;
            or `input_shape` does not fit it.

    Example:
        >>> import keras
        >>> graph = trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="a"), keras.layers.Dense(2)]))
        >>> [(group.name, group.size) for group in graph.groups if not group.frozen]
        [('a', 8)]
    """
    if not flavor.is_model(model):
        raise TypeError(f"Expected a Keras model, got {type(model).__name__}: {str(model)[:80]}")
    if not model.built:
        raise ValueError(f"Model {model.name!r} is not built: call it on an input or give it an Input first.")
    if any(type(layer).__name__ == "PruneLowMagnitude" for layer in flavor.layers_of(model)):
        raise ValueError(f"Model {model.name!r} carries TF-MOT's pruning wrappers: strip_pruning(model) first.")
    with garbage_left_alone():
        return Recorder(model, input_shape).graph()


@contextlib.contextmanager
def garbage_left_alone() -> Iterator[None]:
    """While the body runs, memory is not searched for garbage: a quarter of the time when many objects are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Recorder:
    """Collects what the rules tell during one trace."""

    def __init__(self, model: Any, input_shape: InputShape = None) -> None:
        self.model = model
        walked = model if flavor.is_graph_model(model) else flavor.functional_stand_in(model)
        self.walked, self.renamed, self._not_unfolded = flavor.unfold_layers(walked, is_composite)
        self._has_open_batch = any(map(_is_open, flavor.graph_nodes(self.walked)[0]))
        self.example, shapes = shapes_of_calls(self.walked, input_shape)
        self._shapes = iter(shapes)
        self.space = Space()
        self.names = flavor.layer_names(model)
        self.inside: set[int] = set()
        self.runs: list[np.ndarray] = []
        self._weights = {id(weight) for weight in model.weights}
        self._slots: dict[tuple[int, int], Slot] = {}
        self._forbidden: dict[tuple[int, int], str] = {}
        self._costs: list[Cost] = []
        self._resizes: dict[tuple[int, str], Resize] = {}
        self._rescales: dict[int, Rescale] = {}
        self._shape_resizes: list[tuple[Any, str, Sequence[Any], Value, int]] = []
        self._notes: list[tuple[str, tuple[np.ndarray, ...]]] = []
        self._values: list[Value] = []
        self._steps: list[tuple[Call, tuple[int, ...], tuple[int, ...]]] = []
        self._nested_inputs: dict[int, Value] = {}
        self._not_followed: dict[str, str] = {}

    # What rules tell, through their Call

    def line_of(self, weight: Any, axis: int) -> np.ndarray | None:
        """The ids along a weight's axis that an earlier call told; None where none did."""
        slot = self._slots.get((id(weight), axis))
        return None if slot is None else slot.classes

    def add_slot(
        self,
        weight: Any,
        layer: Any,
        name: str | None,
        axis: int,
        line: np.ndarray,
        reads: bool = False,
        makes: bool = False,
    ) -> None:
        """Note that an axis of a weight is indexed by these ids."""
        if id(weight) not in self._weights:
            raise CannotFollow(f"{layer.name} computes its weights")
        key = (id(weight), axis)
        if key in self._forbidden:
            self.space.ids.freeze(line, self._forbidden[key])
        known = self._slots.get(key)
        if known is not None:
            self.space.ids.unite(known.classes, line)
        else:
            name = name or weight.name.rpartition("/")[2].partition(":")[0]
            self._slots[key] = Slot(weight, layer, name, axis, line, reads, makes)

    def forbid(self, weight: Any, axis: int, reason: str) -> None:
        """Note that nothing can be cut along this axis of a weight, whatever a later call says."""
        self._forbidden.setdefault((id(weight), axis), reason)

    def add_resize(self, owner: Any, key: str, lines: Sequence[np.ndarray | None], value: Callable[..., Any]) -> None:
        """Note that an argument follows these ids; what a second call of a shared layer says must agree."""
        known = self._resizes.get((id(owner), key))
        if known is None:
            self._resizes[id(owner), key] = Resize(owner, key, tuple(lines), value)
            return
        for a, b in zip(known.vectors, lines, strict=True):
            if a is not None and b is not None and a.shape == b.shape:
                self.space.ids.unite(a, b)
            else:
                for line in (a, b):
                    if line is not None:
                        self.space.ids.freeze(line, f"a shared layer's {key} must fit all its calls")

    def add_shape_resize(self, owner: Any, key: str, shape: Sequence[Any], value: Value, skip: int) -> None:
        """Note that a shape among the arguments follows a value."""
        self._shape_resizes.append((owner, key, shape, value, skip))

    def add_rescale(self, weight: Any, table: np.ndarray) -> None:
        """Note a weight that makes up for a layer's scale, once for all calls of a shared layer."""
        self._rescales.setdefault(id(weight), Rescale(weight, table))

    def add_cost(self, layer: Any, macs: int, lines: tuple[np.ndarray, ...]) -> None:
        """Note the MACs of one call."""
        self._costs.append(Cost(layer, macs, lines))

    def note(self, sentence: str, lines: tuple[np.ndarray, ...]) -> None:
        """Note something a plan should say if any of these channels can be dropped."""
        self._notes.append((sentence, lines))

    # The walk

    def graph(self) -> ChannelGraph:
        """Walk the model and settle what was told."""
        inputs, nodes, outputs = flavor.graph_nodes(self.walked)
        outputs = flavor.flatten(outputs, self.walked)
        taken = [self._place(Value(self._input_shape(tensor, number))) for number, tensor in enumerate(inputs)]
        given = self._walk(nodes, dict(zip(map(id, inputs), taken, strict=True)), outputs)
        for place, tensor in zip(given, outputs, strict=True):
            name = flavor.input_layer(tensor).name
            self.space.freeze(self._values[place], f"output of the model ({name})")
        return self._settled(taken, given)

    def _input_shape(self, tensor: Any, number: int) -> tuple[int, ...]:
        return fixed_shape(tensor) if self.example is None else list(self.example.shapes.values())[number]

    def _place(self, value: Value) -> int:
        self._values.append(value)
        return len(self._values) - 1

    def _walk(self, nodes: list[flavor.GraphNode], places: dict[int, int], outputs: list[Any]) -> list[int]:
        """Hand every call to its rule; nested models are unfolded. Returns the places of the outputs."""
        for node in nodes:
            model, time_axes = flavor.model_inside(node.layer)
            if model is None:
                given = self._call(node, [places[id(tensor)] for tensor in node.inputs])
            else:
                taken = [places[id(tensor)] for tensor in flavor.called_on(node)]
                given = self._enter_each_step(node.layer, model, taken, time_axes)
            places.update(zip(map(id, node.outputs), given, strict=True))
        return [places[id(tensor)] for tensor in outputs]

    def _enter_each_step(self, layer: Any, model: Any, taken: Sequence[int], axes: int) -> list[int]:
        """A model inside, whose samples are the steps along so many axes of what it is called on."""
        if not axes:
            return self._enter(model, taken)
        reason = f"{self.names.get(id(layer), layer.name)} works along it"
        steps = self._values[taken[0]].shape[1]
        folded = [self._place(self.space.into_batch(self._values[place], reason)) for place in taken]
        given = self._enter_each_step(layer, model, folded, axes - 1)
        return [self._place(self.space.out_of_batch(self._values[place], steps)) for place in given]

    def _enter(self, model: Any, taken: Sequence[int]) -> list[int]:
        """A nested model: its inner inputs are what it is called on, the same for all its calls."""
        inputs, nodes, outputs = flavor.graph_nodes(model)
        for tensor, place in zip(inputs, taken, strict=True):
            value = self._values[place]
            known = self._nested_inputs.get(id(tensor))
            if known is not None:
                self._same(known, value, f"{model.name} is called on different tensors")
            else:
                self._nested_inputs[id(tensor)] = value
                layer = flavor.input_layer(tensor)
                self.add_shape_resize(layer, "batch_shape", tuple(tensor.shape), value, 0)
        return self._walk(nodes, dict(zip(map(id, inputs), taken, strict=True)), flavor.flatten(outputs, model))

    def _same(self, a: Value, b: Value, reason: str) -> None:
        """Two values that must lose the same places."""
        if a.shape[1:] == b.shape[1:]:  # the steps of a sequence may be samples in one of the calls
            self.space.merge([Value((1, *value.shape[1:]), value.parts) for value in (a, b)], reason)
        else:
            self.space.freeze(a, reason)
            self.space.freeze(b, reason)

    def _call(self, node: flavor.GraphNode, taken: list[int]) -> list[int]:
        values = {id(tensor): self._values[place] for tensor, place in zip(node.inputs, taken, strict=True)}
        args, kwargs = node.filled(values)
        call = Call(
            layer=node.layer,
            name=self.names.get(id(node.layer), node.layer.name),
            inputs=[self._values[place] for place in taken],
            args=args,
            kwargs=kwargs,
            output_shapes=self._output_shapes(node, taken),
            node=node.node,
            recorder=self,
        )
        given = [self._place(value) for value in self._follow(call)]
        self._steps.append((call, tuple(taken), tuple(given)))
        return given

    def _output_shapes(self, node: flavor.GraphNode, taken: list[int]) -> list[tuple[int, ...]]:
        """The shapes of what a call gives; a tensor without samples (a weight) has its own.

        There are more samples than of the model's inputs where places were folded into the batch.
        """
        if self.example is not None:
            return [tuple(1 if size is None else size for size in shape) for shape in next(self._shapes)]
        if self._has_open_batch:
            samples = [place for tensor, place in zip(node.inputs, taken, strict=True) if _is_open(tensor)]
        else:
            samples = taken
        batch = max((self._values[place].shape[0] for place in samples if self._values[place].shape), default=1)
        return [
            fixed_shape(tensor, batch if _is_open(tensor) or not self._has_open_batch else tensor.shape[0])
            for tensor in node.outputs
        ]

    def _follow(self, call: Call) -> list[Value]:
        """What a call gives; where its rule gives up, all that it touches is frozen."""
        try:
            given = rule_for(call.layer)(call)
            given = list(given) if isinstance(given, list | tuple) else [given]
            return [
                value
                if value.rank == len(shape) and value.shape[1:] == shape[1:]
                else Value(shape, self._fitting(value, shape, call))
                for value, shape in zip(given, call.output_shapes, strict=True)
            ]
        except CannotFollow as unknown:
            reason = f"{call.name}: {unknown}"
            if (why := self._not_unfolded.get(id(call.layer))) is not None:
                reason += f"; its own call cannot be followed: {why}"
            if flavor.function_name(call.layer) is None:
                self._not_followed[call.name] = reason
            for value in call.inputs:
                self.space.freeze(value, reason)
            for weight in getattr(call.layer, "weights", ()):
                for axis in range(len(weight.shape)):
                    line = self.line_of(weight, axis)
                    if line is not None:
                        self.space.ids.freeze(line, reason)
                    self.forbid(weight, axis, reason)
            call.masks.clear()
            return [Value(shape) for shape in call.output_shapes]

    def _fitting(self, value: Value, shape: tuple[int, ...], call: Call) -> tuple[np.ndarray, ...]:
        """The parts of a value whose shape a rule gave roughly (sizes that are not fixed, a broadcast batch)."""
        fits = len(shape) == value.rank and all(
            size in (1, part.shape[axis]) or part.shape[axis] == 1
            for part in value.parts
            for axis, size in enumerate(shape)
        )
        if not fits:
            raise CannotFollow(f"its rule gives a tensor of shape {value.shape} where Keras gives {shape}")
        return value.parts

    # The result

    def _settled(self, inputs: list[int], outputs: list[int]) -> ChannelGraph:
        """Number the classes and put everything in terms of them."""
        self.space.settle()
        ids = self.space.ids
        fixed = ids.fresh(1)
        ids.freeze(fixed, "it cannot be dropped")
        roots, classes = np.unique(ids.find(np.arange(len(ids))), return_inverse=True)

        def numbered(line: np.ndarray | None) -> np.ndarray:
            return classes[fixed if line is None else line]

        numbers = dict(zip(roots.tolist(), range(len(roots)), strict=True))
        reasons = {numbers[root]: reason for root, reason in ids.frozen().items()}
        slots = [
            Slot(slot.weight, slot.layer, slot.name, slot.axis, numbered(slot.classes), slot.reads, slot.makes)
            for slot in self._slots.values()
        ]
        tensors = [self._tensor(value, classes) for value in self._values]
        runs = tuple(numbered(line) for line in self.runs)
        groups = self._groups(slots, runs, reasons)
        for group in groups:
            if group.frozen:
                reasons.update(dict.fromkeys(group.classes.tolist(), group.frozen))
        return ChannelGraph(
            model=self.model,
            class_count=len(roots),
            frozen_reason=reasons,
            groups=groups,
            slots=tuple(slots),
            costs=tuple(Cost(c.layer, c.macs, tuple(numbered(line) for line in c.axes)) for c in self._costs),
            resizes=(
                *(
                    Resize(r.owner, r.key, tuple(numbered(line) for line in r.vectors), r.value)
                    for r in self._resizes.values()
                ),
                *self._settled_shapes(classes),
            ),
            notes=tuple(
                dict.fromkeys(
                    sentence
                    for sentence, lines in self._notes
                    if any(number not in reasons for line in lines for number in numbered(line).tolist())
                )
            ),
            names=self.names,
            rescales=tuple(Rescale(one.weight, numbered(one.classes)) for one in self._rescales.values()),
            steps=tuple(
                Step(
                    call.layer,
                    call.node,
                    taken,
                    given,
                    tuple((position, axis, numbered(line)) for position, axis, line in call.masks),
                    call.mixes_channels,
                    id(call.layer) in self.inside,
                )
                for call, taken, given in self._steps
            ),
            tensors=tuple(tensors),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            runs=runs,
            walked=self.walked,
            example=self.example,
            renamed=self.renamed,
            not_followed=self._not_followed,
        )

    def _tensor(self, value: Value, classes: np.ndarray) -> Tensor:
        axes = {}
        for part in value.parts:
            part = self.space.settled_part(part) if len(varying(part)) > 1 else part
            for axis in varying(part):
                axes[axis] = classes[part.reshape(-1)]
        return Tensor(value.shape, axes)

    def _settled_shapes(self, classes: np.ndarray) -> list[Resize]:
        """The shapes among the arguments, now that it is settled along which axes channels lie."""
        resizes: dict[tuple[int, str], Resize] = {}
        for owner, key, shape, value, skip in self._shape_resizes:
            axes = self._tensor(value, classes).axes
            places = [
                place
                for place, size in enumerate(shape)
                if isinstance(size, int | np.integer) and size > 1 and place + skip in axes
            ]
            if places:
                lines = tuple(axes[place + skip] for place in places)
                resizes.setdefault((id(owner), key), Resize(owner, key, lines, _Reshaped(tuple(shape), tuple(places))))
        return list(resizes.values())

    def _groups(self, slots: list[Slot], runs: tuple[np.ndarray, ...], reasons: dict[int, str]) -> tuple[Group, ...]:
        """Classes that own slices of the same axes, in the order in which their layers make them."""
        count = max((int(slot.classes.max()) for slot in slots if len(slot.classes)), default=-1) + 1
        is_frozen = np.zeros(count, bool)
        is_frozen[[number for number in reasons if number < count]] = True
        made = np.zeros(count, bool)
        made[np.concatenate([np.zeros(0, int), *(slot.classes.ravel() for slot in slots if slot.makes)])] = True
        # Classes that are on the same axes have the same sum of random marks.
        owned = [
            *(slot.classes.ravel() for slot in slots),
            *(run[run < count] for run in runs),
            np.flatnonzero(is_frozen),
        ]
        marks = np.random.default_rng(0).integers(1, 2**63, len(owned), dtype=np.uint64)
        signatures = np.zeros(count, np.uint64)
        for classes, mark in zip(owned, marks, strict=True):
            signatures[classes] = signatures[classes] + mark  # not `+=`: one that is there several times is marked once
        members = _alike(np.flatnonzero(made), signatures)
        of_first = np.full(count, -1)  # the classes of a group own slices of the same slots, so the first tells
        of_first[[own[0] for own in members]] = np.arange(len(members))
        touching: dict[int, list[Slot]] = defaultdict(list)
        for slot in slots:
            found = of_first[slot.classes]
            for number in sorted(set(found[found >= 0].tolist())):
                touching[number].append(slot)
        makers = {number: [slot for slot in touching[number] if slot.makes] for number in range(len(members))}
        names = [self.names.get(id(makers[number][0].layer), makers[number][0].layer.name) for number in makers]
        repeated = {name for name, times in Counter(names).items() if times > 1}
        groups, used = [], defaultdict(int)
        for number, own in enumerate(members):
            name = names[number]
            if name in repeated:
                used[name] += 1
                name = f"{name}:{used[name] - 1}"
            layers = dict.fromkeys(self.names.get(id(slot.layer), slot.layer.name) for slot in makers[number])
            heads = next((len(slot.classes) for slot in makers[number] if slot.classes.ndim == 2), None)
            slots_of = tuple(touching[number])
            groups.append(Group(name, own, slots_of, self._reason(own, heads or 1, reasons), tuple(layers), heads))
        return tuple(groups)

    def _reason(self, own: np.ndarray, heads: int, reasons: dict[int, str]) -> str | None:
        if int(own[0]) in reasons:
            return reasons[int(own[0])]
        return "it has a single channel" if len(own) == heads else None


def _alike(classes: np.ndarray, signatures: np.ndarray) -> list[np.ndarray]:
    """The classes with the same signature together, in the order of the first of each."""
    if not len(classes):
        return []
    _, first, kind = np.unique(signatures[classes], return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[kind]
    return np.split(classes[np.argsort(place, kind="stable")], np.cumsum(np.bincount(place))[:-1])


class _Reshaped:
    """A shape with other sizes at some places; what is no plain size is left to the call (`...`)."""

    def __init__(self, shape: tuple, places: tuple[int, ...]) -> None:
        plain = (int, np.integer, type(None))
        self.shape = tuple(size if isinstance(size, plain) else ... for size in shape)
        self.places = places

    def __call__(self, *sizes: int) -> tuple:
        shape = list(self.shape)
        for place, size in zip(self.places, sizes, strict=True):
            shape[place] = size
        return tuple(shape)


def _is_open(tensor: Any) -> bool:
    """Whether the first size of a symbolic tensor is not fixed."""
    return not len(tensor.shape) or tensor.shape[0] is None


def fixed_shape(tensor: Any, batch: int = 1) -> tuple[int, ...]:
    """A symbolic tensor's shape with `batch` for the batch and 1 for each size that is not fixed."""
    shape = tuple(tensor.shape)
    return (batch, *(1 if size is None else int(size) for size in shape[1:])) if shape else ()
