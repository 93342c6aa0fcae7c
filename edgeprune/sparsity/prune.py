"""Put a model under pruning and take it out again, on both Kerases."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from edgeprune import flavor
from edgeprune.sparsity import prunable, schedules, updates
from edgeprune.sparsity.mechanism import Mechanism, mechanism_of
from edgeprune.sparsity.settings import PruningRun


def prune_low_magnitude(
    to_prune: Any,
    pruning_schedule: schedules.PruningSchedule | Mapping[str, schedules.PruningSchedule] | None = None,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: str = "AVG",
    pruning_policy: Any = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    *,
    layers: prunable.LayerChoice | None = None,
    scope: str = "local",
    importance: str = "magnitude",
    **kwargs: Any,
) -> Any:
    """Prune a model, a layer or a list of layers while it trains; TF-MOT's function, for both Kerases.

    Train the result with the callback `UpdatePruningStep`, then call `strip_pruning`. Layers that cannot be
    pruned are left as they are; `sparsity_report` lists them with the reason.

    A Keras 3 model is put under pruning in place and returned; it stays compiled if it was. A `tf_keras` model
    is cloned with TF-MOT's wrappers, shares its weights with the given one, and must be compiled again.

    Masks and step are saved in the model's file, but with Keras 3 a loaded model is a plain one. To go on with a run
    from a file: `load_model`, `prune_low_magnitude` with the same arguments, `load_weights` of the same file. With
    `tf_keras`: `load_model` inside TF-MOT's `prune_scope()`.
    Copies (`copy.deepcopy`, `clone_model`, pickle) are plain models too.

    Args:
        to_prune: a model, a layer or a list of layers of `keras` 3 or `tf_keras`. Subclassed models need Keras 3.
        pruning_schedule: when to prune and how much; by default TF-MOT's `ConstantSparsity(0.5, 0)`. A dict of
            names and patterns gives layers schedules of their own: `{"block_*": schedule, "head": other}`;
            the first pattern that fits counts, and a layer that none fits is not pruned.
        block_size: (rows, columns) of the blocks that are pruned together, for 2-dimensional weights.
        block_pooling_type: `"AVG"` or `"MAX"`: a block's importance from its weights'.
        pruning_policy: a `PruningPolicy` that allows layers and checks the model.
        sparsity_m_by_n: (m, n): m zeros in every n consecutive weights, for example (2, 4).
        layers: which layers of a model: a name (alone, or with those around it: `"encoder/dense"`), a pattern, a
            layer, a function of a layer, or a list of these.
        scope: `"local"`: each weight tensor reaches the sparsity; `"global"`: all of them together do.
        importance: `"magnitude"` or `"taylor"`, which is |weight x gradient| summed over the steps between two
            mask updates (Molchanov et al., 2017, https://arxiv.org/abs/1611.06440).
        **kwargs: arguments of TF-MOT's wrapper, where a single `tf_keras` layer is given; for a model they are
            ignored, as by TF-MOT, with a warning.

    Returns:
        The model, layer or list under pruning.

    Raises:
        TypeError: `layers` is nothing that chooses layers, or is given with a layer or a list.
        ValueError: `to_prune` is nothing that can be pruned, a subclassed `tf_keras` model among it, an argument is
            out of range, no layer can be pruned, or the policy refuses the model.

    Example:
        >>> import keras, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="dense")])
        >>> model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8))
        >>> [row.layer for row in ep.sparsity_report(model).rows]
        ['dense']
    """
    if pruning_schedule is None:
        pruning_schedule = schedules.ConstantSparsity(0.5, 0)
    runs = _Runs(
        pruning_schedule,
        PruningRun(None, block_size, block_pooling_type, sparsity_m_by_n, scope, importance),
    )
    if flavor.is_model(to_prune):
        if kwargs:
            warnings.warn(f"{', '.join(kwargs)}: ignored, since only a single layer has further arguments.")
        return _prune_model(to_prune, runs, pruning_policy, layers)
    if layers is not None or pruning_policy is not None:
        raise TypeError("layers= and pruning_policy= choose among the layers of a model; layers are given as they are.")
    if isinstance(to_prune, list):
        return [_prune_layer(layer, runs, kwargs) for layer in to_prune]
    if flavor.is_layer(to_prune):
        return _prune_layer(to_prune, runs, kwargs)
    raise prunable.wrong_type(to_prune, "A model in a file is loaded first: keras.models.load_model(path).")


def strip_pruning(model: Any) -> Any:
    """End pruning: a plain model with the zeros in its weights and nothing of edgeprune or TF-MOT left.

    Args:
        model: a model or layer of either Keras. Without pruning it is returned as it is.

    Returns:
        For Keras 3 the same object, freed in place. For `tf_keras` a clone without wrappers that shares the
        layers, not compiled.

    Raises:
        ValueError: not a Keras model or layer.

    Example:
        >>> model = strip_pruning(model)  # doctest: +SKIP
    """
    if not flavor.is_layer(model):
        raise ValueError(f"Expected a model or a layer of `keras` 3 or `tf_keras`, got {type(model).__name__}.")
    mechanism = mechanism_of(model)
    if not mechanism.is_pruned(model):
        return model
    updates.warn_of_missing_zeros(model, mechanism.masked_weights(model))
    return mechanism.strip(model)


def prune_scope() -> contextlib.AbstractContextManager:
    """The scope in which `tf_keras` loads a model that was saved under pruning; TF-MOT's own.

    Returns:
        A context manager. Keras 3 models need none: what is saved under pruning is a plain model.

    Example:
        >>> with prune_scope():  # doctest: +SKIP
        ...     model = tf_keras.models.load_model("half.h5")
    """
    return flavor.import_tfmot().sparsity.keras.prune_scope()


def without_pruning(model: Any) -> Any:
    """A plain model to convert or to look at, its masks applied; the given one goes on being pruned."""
    mechanism = mechanism_of(model)
    if not mechanism.is_pruned(model):
        return model
    if not flavor.is_keras_3(model):
        return mechanism.strip(model)
    mechanism.apply_masks(model)
    return model


def pruning_step(model: Any) -> int:
    """The training step that the pruning of a model or layer has come to.

    Args:
        model: a model or layer of either Keras, put under pruning by `prune_low_magnitude` or loaded so.

    Returns:
        The number of training steps under pruning, with the one that runs; a run that goes on from a file goes on
        counting. 0 once training has begun, and -1 before, like `pruning_step` of TF-MOT's wrapper.

    Raises:
        TypeError: not a Keras model or layer.
        ValueError: not under pruning.

    Example:
        >>> import keras, edgeprune as ep
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model = ep.prune_low_magnitude(model, ep.PolynomialDecay(0.0, 0.8))
        >>> pruning_step(model)
        -1
    """
    mechanism = mechanism_of(model)
    if not mechanism.is_pruned(model):
        raise ValueError(f"{model.name!r} is not under pruning, so it has no pruning step: prune_low_magnitude first.")
    return mechanism.current_step(model)


class _Runs:
    """Which run a layer belongs to: one for all, or one for each pattern of a dict of schedules."""

    def __init__(self, schedule: Any, settings: PruningRun):
        by_pattern = schedule if isinstance(schedule, Mapping) else {"*": schedule}
        if len(by_pattern) > 1 and settings.scope == "global":
            raise ValueError('scope="global" ranks all weights together and takes one schedule, not a dict of them.')
        for pattern, one in by_pattern.items():
            if not callable(one) or not hasattr(one, "get_config"):
                raise ValueError(f"pruning_schedule[{pattern!r}] must be a PruningSchedule, got {one!r}")
        self._by_pattern = {
            pattern: dataclasses.replace(settings, schedule=schedules.own_schedule(one))
            for pattern, one in by_pattern.items()
        }

    def of(self, name: str) -> PruningRun | None:
        """The run of the layer of this name, or None where no pattern fits it."""
        fitting = (run for pattern, run in self._by_pattern.items() if prunable.fits_pattern(name, pattern))
        return next(fitting, None)

    def check_patterns(self, names: Iterable[str]) -> None:
        """Raise where a pattern fits no layer."""
        for pattern in self._by_pattern:
            if not any(prunable.fits_pattern(name, pattern) for name in names):
                raise ValueError(f"pruning_schedule has the pattern {pattern!r}, which fits the name of no layer.")


def _prune_layer(layer: Any, runs: _Runs, arguments: dict[str, Any]) -> Any:
    if not flavor.is_layer(layer):
        raise prunable.wrong_type(layer, f"The list to prune holds {layer!r}, which is no layer of Keras.")
    if flavor.is_model(layer):
        return _prune_model(layer, runs, None, None)
    run, mechanism = runs.of(layer.name), mechanism_of(layer)
    if run is None:
        return layer
    for part in mechanism.parts_of(layer):
        reason = _why_not_settings(part, run) if prunable.can_be_pruned(part) else None
        if reason:  # in a model it would be skipped
            raise ValueError(f"Layer {layer.name!r} cannot be pruned: {reason}")
    return mechanism.prune_layer(layer, run, **arguments)


def _prune_model(model: Any, runs: _Runs, policy: Any, layers: Any) -> Any:
    if policy is not None:
        policy.ensure_model_supports_pruning(model)
    mechanism, names = mechanism_of(model), flavor.layer_names(model)
    candidates = mechanism.candidates(model)
    runs.check_patterns([names[id(layer)] for layer in candidates])
    chosen = {id(layer) for layer in prunable.chosen_layers(model, layers)}
    accepted: dict[int, PruningRun] = {}
    reasons = {}
    for layer in candidates:
        run = runs.of(names[id(layer)])
        if id(layer) not in chosen or run is None:
            continue
        if policy is not None and not policy.allow_pruning(layer):
            continue
        reason = _why_not(mechanism, layer, run)
        if reason is None:
            accepted[id(layer)] = run
        elif reason:
            reasons[names[id(layer)]] = run.refused[names[id(layer)]] = reason
    if not accepted:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(
            f"No layer of model {model.name!r} can be pruned. "
            + (told or "None of those that layers=, the schedules and the policy leave has a kernel.")
        )
    return mechanism.prune_model(model, accepted)


def _why_not(mechanism: Mechanism, layer: Any, run: PruningRun) -> str | None:
    """Why a layer is not pruned; an empty string where there is nothing to prune, None where it is pruned."""
    parts = [part for part in mechanism.parts_of(layer) if prunable.can_be_pruned(part)]
    if not parts:
        return prunable.why_not_prunable(layer) or ""
    reasons = (mechanism.why_not(layer, run), *(_why_not_settings(part, run) for part in parts))
    return next(filter(None, reasons), None)


def _why_not_settings(layer: Any, run: PruningRun) -> str | None:
    if not layer.built:
        return None
    shapes = [tuple(weight.shape) for weight in prunable.prunable_weights(layer).values()]
    return prunable.why_no_weights(layer) or next(filter(None, map(run.why_not_shape, shapes)), None)
