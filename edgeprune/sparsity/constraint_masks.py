"""Masks for Keras 3: held by the `constraint` of each pruned variable, applied by the optimizer.

The optimizer calls a variable's constraint after each of its updates, inside the compiled step. So the model
remains a plain model, its zeros are exact after every step, and whatever saves it finds them.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import tensorflow as tf

from edgeprune import flavor
from edgeprune.sparsity import prunable, schedules, updates
from edgeprune.sparsity.masked_variables import LayerPruning, MaskedVariable, Training
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import Layer, Model, Optimizer

# The attribute of a layer that holds its pruning.
_ATTRIBUTE = "edgeprune_pruning"
# Arguments that TF-MOT's wrapper accepts and that change nothing in the layer inside it.
_OF_THE_WRAPPER = ("name", "trainable", "dtype", "dynamic", "autocast", "batch_size")
# A trained kernel may have some zeros by itself; no warning comes of this fraction and less.
_FEW_ZEROS = 0.05
# For each model the function that masks its weights, which takes time to compile, with the weights it masks.
_COMPILED_APPLIES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def attach(layer: Layer, run: PruningRun, alone: bool = False) -> None:
    """Put a layer under pruning; the masks of one that is not built are made when it is.

    Args:
        layer: the layer; one that makes its parts when it is built hands its pruning on to them.
        run: the settings.
        alone: whether it was passed by itself, so that not to prune it is an error.
    """
    pruning = LayerPruning(run)
    hold(layer, pruning)
    if layer.built:
        _install(layer, pruning, alone)
    else:
        _install_when_built(layer, pruning, alone)


def detach(layer: Layer) -> None:
    """Free a layer from pruning; its weights are not changed."""
    pruning = pruning_of(layer)
    if pruning is None:
        return
    for weight in pruning.weights:
        weight.release()
    forget_pruning(layer)


def _install(layer: Layer, pruning: LayerPruning, alone: bool) -> None:
    """Make the masks of a layer that is built.

    Raises:
        ValueError: it was passed by itself and cannot be pruned.
    """
    reason = prunable.why_not_settings(layer, pruning.run) if prunable.can_be_pruned(layer) else None
    if reason is None:
        pruning.install(layer)
    elif alone:
        raise ValueError(f"Layer {layer.name!r} cannot be pruned: {reason}")
    else:
        pruning.run.refused[layer] = reason
    if not pruning.weights:
        forget_pruning(layer)


def _install_when_built(layer: Layer, pruning: LayerPruning, alone: bool) -> None:
    build, parts_before = layer.build, set(map(id, flavor.layers_of(layer)))

    @functools.wraps(build)
    def build_and_install(*args: object, **kwargs: object) -> None:
        object.__setattr__(layer, "build", build)
        build(*args, **kwargs)
        if pruning_of(layer) is not pruning:
            return
        _install(layer, pruning, alone)
        for part in flavor.layers_of(layer):
            if id(part) not in parts_before and pruning_of(part) is None and prunable.can_be_pruned(part):
                attach(part, pruning.run, alone)
                _join_training(part, pruning)
        if alone and not has_masks(layer) and flavor.weights_of(layer):
            reasons = [pruning.run.refused.get(part) for part in flavor.layers_of(layer)]
            reason = next(filter(None, [*reasons, prunable.why_not_prunable(layer)]), "nothing in it has a kernel")
            raise ValueError(f"Layer {layer.name!r} cannot be pruned: {reason}")

    object.__setattr__(layer, "build", build_and_install)


def _join_training(part: Layer, around: LayerPruning) -> None:
    """Let a part that was made while a model trains be counted with the layer around it."""
    if (pruning := pruning_of(part)) is not None:
        pruning.training = around.training
        if around.run.counter is not None:
            around.run.counter.add(pruning)


def hold(layer: Layer, pruning: object) -> None:
    """Set what a layer holds as its pruning, past Keras's tracking."""
    object.__setattr__(layer, _ATTRIBUTE, pruning)


def forget_pruning(layer: Layer) -> None:
    """Remove from a layer what it holds as its pruning."""
    object.__delattr__(layer, _ATTRIBUTE)


def pruning_of(layer: Layer) -> LayerPruning | None:
    """The pruning a layer is under, or None."""
    return vars(layer).get(_ATTRIBUTE)


def pruned_layers(model: Layer) -> list[Layer]:
    """The layers of a model, at any depth, that are under pruning; itself too while it may make some."""
    return [layer for layer in dict.fromkeys((model, *flavor.layers_of(model))) if holds(layer)]


def masked_weights(model: Layer) -> list[MaskedVariable]:
    """The variables of a model that are under pruning."""
    return [weight for pruning in _prunings(model) for weight in pruning.weights]


def _prunings(model: Layer) -> list[LayerPruning]:
    """The pruning of each layer that is under it."""
    return [pruning for layer in pruned_layers(model) if (pruning := pruning_of(layer)) is not None]


def candidates(model: Layer) -> list[Layer]:
    """The layers that may be put under pruning: all, at any depth, and a model that may make some when it is built."""
    itself = [model] if may_add_sublayers(model) and not flavor.is_graph_model(model) else []
    return [*itself, *flavor.layers_of(model)]


def parts_of(layer: Layer) -> list[Layer]:
    """The layers that go under pruning with a candidate: itself alone."""
    return [layer]


def holds(layer: Layer) -> bool:
    """Whether this very layer is under pruning, whatever is inside it."""
    return pruning_of(layer) is not None


def why_not(layer: Layer, run: PruningRun) -> str | None:
    """What keeps masks from a layer that has prunable weights: nothing."""
    return None


def why_not_alone(layer: Layer, run: PruningRun) -> str | None:
    """What keeps a layer that was passed by itself from pruning; None where nothing does, as far as is known yet."""
    return prunable.why_not_single_layer(layer)


def may_add_sublayers(layer: Layer) -> bool:
    """Whether a layer may make parts that can be pruned when it is built."""
    overrides_build = type(layer).build is not flavor.keras_of(layer).layers.Layer.build
    return overrides_build and not layer.built and prunable.why_excluded(layer) is None


def prune_model(model: Model, runs: dict[int, PruningRun]) -> Model:
    """Put the layers with a run, by the layer's id, under pruning, in place."""
    for layer in candidates(model):
        if id(layer) in runs:
            attach(layer, runs[id(layer)])
    _forget_compiled_steps(model)
    return model


def prune_layer(layer: Layer, run: PruningRun, **arguments: object) -> Layer:
    """Put a layer and the layers inside it under pruning, in place.

    Args:
        layer: the layer.
        run: the settings.
        **arguments: of TF-MOT's wrapper, which is not made here; the shape of the input is the layer's own.

    Raises:
        TypeError: an argument is unknown, or would act on the wrapper alone.
        ValueError: the layer is built and cannot be pruned.
    """
    _set_input_shape(layer, arguments)
    for part in flavor.layers_of(layer):
        if not holds(part) and (prunable.can_be_pruned(part) or may_add_sublayers(part)):
            attach(part, run, alone=part is layer)
    return layer


def _set_input_shape(layer: Layer, arguments: dict[str, Any]) -> None:
    """Set the shape of its input, from which a Sequential is built, as Keras 3's own layers do."""
    unknown = sorted(set(arguments) - {"input_shape", "input_dim", "batch_input_shape", *_OF_THE_WRAPPER})
    if unknown:
        raise TypeError(f"prune_low_magnitude has no argument {', '.join(unknown)} for a Keras 3 layer.")
    shape = arguments.get("input_shape")
    if "input_dim" in arguments:
        shape = (arguments["input_dim"],)
    if "batch_input_shape" in arguments:
        shape = arguments["batch_input_shape"][1:]
    if shape is not None:
        object.__setattr__(layer, "_input_shape_arg", tuple(shape))


def strip(model: Layer) -> Any:
    """Apply the masks a last time and free the layers, in place."""
    apply_masks(model)
    end_training(model)
    adapted = [layer.name for layer in pruned_layers(model) if getattr(layer, "lora_enabled", False)]
    if adapted:
        warnings.warn(f"{', '.join(adapted)}: with LoRA the kernel is a sum, which is not sparse, whatever was pruned.")
    for layer in pruned_layers(model):
        detach(layer)
    _forget_compiled_steps(model)
    return model


def begin_training(model: Model, in_fit: bool) -> updates.StepCounter:
    """Make the model's training step apply the masks; returns the counter of its steps."""
    optimizer = _innermost_optimizer(model)
    prunings = _prunings(model)
    _warn_of_lost_masks(masked_weights(model))
    counter = updates.StepCounter(prunings, _compiled_apply(model), in_fit)
    for pruning in prunings:
        pruning.training = Training(optimizer, counter.count_eager_step)
    if optimizer is not None and any(pruning.run.importance == "taylor" for pruning in prunings):
        _gather_scores_in(optimizer, model)
    _compile_with_masks(model, prunings)
    return counter


def _warn_of_lost_masks(weights: list[MaskedVariable]) -> None:
    """Warn where pruning begins on weights with zeros that no mask keeps, as after a file without masks."""
    lost = []
    for weight in weights:
        if weight.run.step == 0 and weight.mask().all():
            zeros = 1 - np.count_nonzero(weight.value()) / weight.value().size
            if max(_FEW_ZEROS, weight.run.sparsity_reached(1)) < zeros < 1:
                lost.append(f"{weight.name} ({zeros:.0%})")
    if lost:
        warnings.warn(
            f"Pruning begins at step 0 on weights that have zeros already: {', '.join(lost)}. They grow back until the "
            "first mask update. To continue a run from a file, save the model as .keras and call load_weights of "
            "that file after prune_low_magnitude; an .h5 file that Keras 3 writes holds neither masks nor step."
        )


def runs(model: Layer) -> list[PruningRun]:
    """What was asked of pruning, each run once."""
    return list(dict.fromkeys(pruning.run for pruning in _prunings(model)))


def scheduled(model: Model) -> list[tuple[schedules.PruningSchedule, int]]:
    """The schedules at work in a model, each with the step it has come to."""
    return [(run.schedule, run.step) for run in runs(model) if not run.sparsity_m_by_n]


def has_masks(model: Layer) -> bool:
    """Whether any layer of the model is under pruning."""
    return bool(pruned_layers(model))


def current_step(model: Layer) -> int:
    """The training step the model's pruning has come to; -1 before training has begun."""
    return max((run.step if run.step or run.counter else -1 for run in runs(model)), default=-1)


def apply_masks(model: Layer) -> None:
    """Put zeros where the masks are zero, and return where weights had been set from elsewhere."""
    strays = sum(np.count_nonzero(weight.value()[~weight.mask()]) for weight in masked_weights(model))
    if strays:
        warnings.warn(
            f"{strays:,} weights of {model.name!r} that its masks prune were not zero and are set to zero now: the "
            "weights are not those the masks were made for. EarlyStopping(restore_best_weights=True) and set_weights "
            "bring back weights without their masks; ModelCheckpoint and load_weights bring back both."
        )
    for weight in masked_weights(model):
        weight.apply()


def end_training(model: Layer) -> None:
    """Undo what `begin_training` did."""
    optimizer = _innermost_optimizer(model)
    if optimizer is not None:
        vars(optimizer).pop("apply", None)
    for pruning in _prunings(model):
        pruning.training = Training(optimizer)


def _forget_compiled_steps(model: Layer) -> None:
    """Have the training steps of a model and the models in it recompiled, without the masks they knew."""
    for part in (model, *flavor.layers_of(model)):
        if getattr(part, "train_function", None) is not None:
            part.make_train_function(force=True)


def _compile_with_masks(model: Model, prunings: list[LayerPruning]) -> None:
    """Have the training step recompiled, unless it was compiled with these masks."""
    step = getattr(model, "train_function", None)
    if step is None or all(step in pruning.steps for pruning in prunings):
        return
    model.make_train_function(force=True)
    for pruning in prunings:
        pruning.steps.add(model.train_function)


def _compiled_apply(model: Model) -> Callable[[], None]:
    """A function that puts zeros into all the weights at once: compiled, it is six times faster than one by one."""
    weights = masked_weights(model)
    known = _COMPILED_APPLIES.get(model)
    if known is not None and known[0] == weights:
        return known[1]

    alive = weakref.ref(model)  # kept below for as long as the model lives, and must not be what keeps it alive

    @functools.partial(tf.function, autograph=False)
    def apply_all() -> None:
        model = alive()
        assert model is not None, "the training step runs in it"
        for weight in masked_weights(model):  # looked up while it is traced: by then every layer is built
            weight.apply()

    _COMPILED_APPLIES[model] = (weights, apply_all)
    return apply_all


def _innermost_optimizer(model: Layer) -> Optimizer | None:
    """The optimizer that sees the true gradients, inside any loss scaling; None before `compile`."""
    optimizer: Any = getattr(model, "optimizer", None)
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def _gather_scores_in(optimizer: Optimizer, model: Model) -> None:
    """Let the optimizer show its gradients to the weights with Taylor importance."""
    apply = cast(Any, type(optimizer)).apply

    def apply_and_gather(grads: Iterable[Any], trainable_variables: Iterable[Any] | None = None) -> Any:
        # Looked up while the step is traced: by then every layer is built.
        scored = {id(weight.variable): weight for weight in masked_weights(model) if weight.run.importance == "taylor"}
        variables = optimizer._trainable_variables if trainable_variables is None else trainable_variables
        pairs = list(zip(grads, variables, strict=True))
        for gradient, variable in pairs:
            if id(variable) in scored and gradient is not None:
                scored[id(variable)].gather_scores(gradient)
        return apply(optimizer, [gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    vars(optimizer)["apply"] = apply_and_gather
