"""Put a model under pruning and strip it again, on both Kerases."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from edgeprune import flavor
from edgeprune.layer_patterns import fits_pattern, layers_fitting, similar
from edgeprune.sparsity import prunable, schedules, updates
from edgeprune.sparsity.mechanism import Mechanism, mechanism_of
from edgeprune.sparsity.settings import PruningRun
from edgeprune.types import AnyTensor, Layer, LayerChoice, Model, Prunable, SameLayer, SameModel

if TYPE_CHECKING:
    from edgeprune.sparsity.policies import PruningPolicy

_Schedule = schedules.PruningSchedule | Callable[[AnyTensor], tuple[bool | AnyTensor, float | AnyTensor]]
_Schedules = _Schedule | Mapping[str, _Schedule]


def prune_low_magnitude(
    to_prune: Prunable,
    pruning_schedule: _Schedules | None = None,
    block_size: tuple[int, int] = (1, 1),
    block_pooling_type: Literal["AVG", "MAX"] = "AVG",
    pruning_policy: PruningPolicy | None = None,
    sparsity_m_by_n: tuple[int, int] | None = None,
    *,
    layers: LayerChoice | None = None,
    scope: Literal["local", "global"] = "local",
    importance: Literal["magnitude", "taylor"] = "magnitude",
    **kwargs: object,
) -> Prunable:
    """Prune a model, a layer or a list of layers while it trains; TF-MOT's function, for both Kerases.

    Train the result with the callback `UpdatePruningStep`, then call `strip_pruning`. Layers of a model that cannot be
    pruned are left as they are; `sparsity_report` lists them with the reason. A layer that is under pruning already
    keeps its schedule.

    A Keras 3 model is put under pruning in place and returned; if it was compiled, it still is. A `tf_keras` model
    is cloned with TF-MOT's wrappers, shares its weights with the one passed, and must be compiled again.

    Settings, masks and step are saved in the model's file (with Keras 3 in `.keras` and `.weights.h5`, not in `.h5`).
    To continue a run from a file call `load_model` inside `prune_scope()`. With Keras 3 a model that is loaded
    outside of it is a plain one; `prune_low_magnitude` with the same arguments and `load_weights` of the same file go
    on too.
    Copies (`copy.deepcopy`, `clone_model`, pickle) are plain models too.

    Args:
        to_prune: a model, a layer or a list of layers of `keras` 3 or `tf_keras`. Subclassed models need Keras 3.
        pruning_schedule: when to prune and how much; by default TF-MOT's `ConstantSparsity(0.5, 0)`. Also a plain
            function: `function(step)` returns whether to prune and the sparsity, 0 to 1. A dict of names and patterns
            assigns schedules to layers: `{"block_*": schedule, "head": other}`; the first pattern that fits
            counts, and a layer that none fits is not pruned.
        block_size: (rows, columns) of the blocks that are pruned together, for 2-dimensional weights; whole numbers
            from 1. In blocks of (1, 2) the kernel `[[1, 9, 2, 3], [4, 4, 8, 1]]` has the mean magnitudes
            `[[5, 2.5], [4, 4.5]]`; with half of them zero it becomes `[[1, 9, 0, 0], [0, 0, 8, 1]]`.
        block_pooling_type: `"AVG"` or `"MAX"`: a block's importance from its weights'.
        pruning_policy: a `PruningPolicy` that allows layers and checks the model; not used for single layers.
        sparsity_m_by_n: (m, n): m zeros in every n consecutive weights of a unit or filter, along its inputs; whole
            numbers. With (2, 4) the weights `[1, -9, 2, 3]` of a unit become `[0, -9, 0, 3]`. It overrides
            `block_size`, as with TF-MOT.
        layers: which layers of a model: a name (`"dense"`, `"encoder/dense"`; that of a nested model stands for its
            layers), a pattern (`"block_*"`), a layer, a function of a layer, or a list of these.
        scope: `"local"`: each weight tensor reaches the sparsity; `"global"`: all of them together do.
        importance: `"magnitude"` or `"taylor"`, which is |weight x gradient| summed over the steps between two
            mask updates (Molchanov et al., 2017, https://arxiv.org/abs/1611.06440).
        **kwargs: for a single layer, arguments of TF-MOT's wrapper such as `input_shape=(28, 28, 1)`; for a model or a
            list they are ignored, as by TF-MOT, with a warning.

    Returns:
        The model, layer or list under pruning. A model without a kernel comes back as it is, with a warning.

    Raises:
        TypeError: `pruning_policy` is no policy, `layers=` is passed with a single layer, or an argument of the layer
            is unknown.
        ValueError: `to_prune` is nothing that can be pruned, an argument is out of range, no layer can be pruned, a
            layer that is passed by itself cannot (or, once it is built, does not fit the settings), the policy refuses
            the model, or the model is a subclassed one of `tf_keras`.

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
        # The schedule of each layer replaces this one.
        PruningRun(
            schedules.ConstantSparsity(0.5, 0), block_size, block_pooling_type, sparsity_m_by_n, scope, importance
        ),
    )
    _check_policy(pruning_policy)
    if flavor.is_model(to_prune):
        _warn_of_ignored(kwargs)
        return cast(Prunable, _prune_model(to_prune, runs, pruning_policy, layers))
    if layers is not None:
        raise TypeError("layers= chooses among the layers of a model; pass a single layer without it.")
    if isinstance(to_prune, list):
        _warn_of_ignored(kwargs)
        return cast(Prunable, [_prune_layer(layer, runs, {}) for layer in to_prune])
    if flavor.is_layer(to_prune):
        reason = prunable.why_excluded(to_prune)
        if reason:
            warnings.warn(f"Layer {to_prune.name!r} is not pruned: {reason}.")
        return cast(Prunable, _prune_layer(to_prune, runs, kwargs))
    raise prunable.wrong_type(to_prune, "A model in a file is loaded first: keras.models.load_model(path).")


def remove_weight_masks(model: SameLayer) -> SameLayer:
    """End the pruning of weights, as `strip.strip_pruning` does; masked channels remain masked.

    Returns:
        A model without pruning as it is. For Keras 3 the same object, freed in place. For `tf_keras` a clone without
        wrappers that shares the layers, not compiled.

    Raises:
        ValueError: not a Keras model or layer.
    """
    if not flavor.is_layer(model):
        raise ValueError(f"Expected a model or a layer of `keras` 3 or `tf_keras`, got {type(model).__name__}.")
    mechanism = mechanism_of(model)
    if not mechanism.has_masks(model):
        return model
    updates.warn_of_missing_zeros(model, mechanism.masked_weights(model))
    return mechanism.strip(model)


@contextlib.contextmanager
def prune_scope() -> Iterator[None]:
    """The scope in which `load_model` returns a model that continues to be pruned as it was when it was saved.

    `tf_keras` needs it to load a model that was saved under pruning. For Keras 3 such a file is a plain model;
    inside the scope `load_model` of a `.keras` file brings back settings, masks and step too. An `.h5` file that
    Keras 3 wrote has none of them, which is warned of.

    Returns:
        A context manager.

    Example:
        >>> ep.prune_low_magnitude(model, ep.ConstantSparsity(0.5, 0)).save("half.keras")
        >>> with prune_scope():
        ...     model = keras.models.load_model("half.keras")
        >>> ep.is_pruned(model), ep.is_pruned(keras.models.load_model("half.keras"))
        (True, False)
    """
    from edgeprune.sparsity import resume, wrapper_masks

    wrappers = flavor.keras_module(flavor.TF_KERAS).utils.custom_object_scope(
        {"PruneLowMagnitude": wrapper_masks.PruneLowMagnitude}
    )
    with wrappers, resume.loading_under_pruning():
        yield


def with_masks_applied(model: SameModel) -> SameModel:
    """A plain model to convert or to look at, its masks applied; the one passed continues to be pruned."""
    mechanism = mechanism_of(model)
    if not mechanism.has_masks(model):
        return model
    if not flavor.is_keras_3(model):
        return mechanism.strip(model)
    mechanism.apply_masks(model)
    return model


def without_wrappers(model: Model) -> Any:
    """A `tf_keras` model under pruning without TF-MOT's wrappers, on the same weights; any other as it is."""
    if not flavor.is_model(model) or flavor.is_keras_3(model):
        return model
    from edgeprune.sparsity import wrapper_masks

    return wrapper_masks.clone_without_wrappers(model) if wrapper_masks.has_masks(model) else model


def pruning_step(model: Layer) -> int:
    """The training step that the pruning of a model or layer has come to.

    Args:
        model: a model or layer of either Keras, put under pruning by `prune_low_magnitude` or loaded so.

    Returns:
        The number of training steps under pruning, with the one that runs; a run continued from a file continues
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
    if not mechanism.has_masks(model):
        raise ValueError(f"{model.name!r} is not under pruning, so it has no pruning step: prune_low_magnitude first.")
    return mechanism.current_step(model)


class _Runs:
    """Which run a layer belongs to: one for all, or one for each pattern of a dict of schedules."""

    def __init__(self, schedule: _Schedules, settings: PruningRun):
        by_pattern = schedule if isinstance(schedule, Mapping) else {"*": schedule}
        if not by_pattern or not all(isinstance(pattern, str) for pattern in by_pattern):
            raise ValueError(f"pruning_schedule as a dict has names or patterns of layers as keys, got {schedule!r}.")
        if len(by_pattern) > 1 and settings.scope == "global":
            raise ValueError('scope="global" ranks all weights together and accepts one schedule, not a dict of them.')
        self.is_choice = isinstance(schedule, Mapping)
        self.refused = settings.refused  # one for all the runs
        checked = {
            pattern: schedules.checked(one, f"pruning_schedule[{pattern!r}]" if self.is_choice else "pruning_schedule")
            for pattern, one in by_pattern.items()
        }
        self._by_pattern = {
            pattern: dataclasses.replace(settings, schedule=schedules.own_schedule(one))
            for pattern, one in checked.items()
        }

    def of(self, name: str) -> PruningRun | None:
        """The run of a layer given by itself, or None where no pattern fits its name."""
        return next((run for pattern, run in self._by_pattern.items() if fits_pattern(name, pattern)), None)

    def of_layers(self, model: Model, candidates: Sequence[Layer]) -> dict[int, PruningRun]:
        """By `id` the run of each layer of a model that a pattern fits: the first that does.

        Raises:
            ValueError: a pattern fits none of the candidates.
        """
        if not self.is_choice:
            return dict.fromkeys(map(id, candidates), self._by_pattern["*"])
        names, found = prunable.names_of(model), dict[int, PruningRun]()
        for pattern, run in self._by_pattern.items():
            fitting = layers_fitting(model, pattern, names)
            if fits_pattern(model.name, pattern):  # one that makes layers when it is built is a candidate itself
                fitting.add(id(model))
            if fitting.isdisjoint(map(id, candidates)):
                raise ValueError(
                    f"pruning_schedule has the pattern {pattern!r}, which fits the name of no layer."
                    + similar(pattern, names.values())
                )
            found = {**dict.fromkeys(fitting, run), **found}
        return found


def _check_policy(policy: object) -> None:
    asked = ("allow_pruning", "ensure_model_supports_pruning")
    if policy is None or (not isinstance(policy, type) and all(hasattr(policy, name) for name in asked)):
        return
    raise TypeError(f"pruning_policy must be a PruningPolicy, got {policy!r}.")


def _warn_of_ignored(arguments: Mapping[str, Any]) -> None:
    if arguments:
        warnings.warn(f"{', '.join(arguments)}: ignored, as these arguments are for a single layer.")


def _prune_layer(layer: Layer, runs: _Runs, arguments: dict[str, Any]) -> Layer:
    if not flavor.is_layer(layer):
        raise prunable.wrong_type(layer, f"The list to prune holds {layer!r}, which is no layer of Keras.")
    if flavor.is_model(layer):
        return _prune_model(layer, runs, None, None)
    run, mechanism = runs.of(layer.name), mechanism_of(layer)
    if run is None or mechanism.holds(layer):
        return layer
    parts = [part for part in flavor.layers_of(layer) if prunable.can_be_pruned(part)]
    reasons = (mechanism.why_not_alone(layer, run), *(prunable.why_not_settings(part, run) for part in parts))
    reason = next(filter(None, reasons), None)
    if reason:  # in a model it would be skipped
        raise ValueError(f"Layer {layer.name!r} cannot be pruned: {reason}")
    return mechanism.prune_layer(layer, run, **arguments)


def _prune_model(model: Model, runs: _Runs, policy: PruningPolicy | None, layers: LayerChoice | None) -> Model:
    if policy is not None:
        policy.ensure_model_supports_pruning(model)
    mechanism, names = mechanism_of(model), {id(model): model.name, **prunable.names_of(model)}
    candidates = mechanism.candidates(model)
    run_of = runs.of_layers(model, candidates)
    chosen = {id(layer) for layer in (candidates if layers is None else prunable.chosen_layers(model, layers))}
    accepted: dict[int, PruningRun] = {}
    problems, kept = {}, []
    for layer in candidates:
        run = run_of.get(id(layer))
        if mechanism.holds(layer):
            kept.append(layer)
        elif id(layer) not in chosen:
            _refuse(mechanism, layer, runs, "not among those that layers= chooses")
        elif run is None:
            _refuse(mechanism, layer, runs, "no pattern of pruning_schedule fits its name")
        elif policy is not None and not policy.allow_pruning(layer):
            _refuse(mechanism, layer, runs, "the pruning policy does not allow it")
        elif (reason := _why_not(mechanism, layer, run)) is None:
            accepted[id(layer)] = run
        elif reason:
            _refuse(mechanism, layer, runs, reason)
            problems[names[id(layer)]] = reason
    if accepted:
        return mechanism.prune_model(model, accepted)
    if kept:
        warnings.warn(
            f"Every layer of model {model.name!r} that can be pruned is under pruning already and keeps its schedule: "
            "call strip_pruning first to change it."
        )
        return model
    _report_nothing_pruned(model, problems, runs.is_choice or layers is not None)
    return model


def _refuse(mechanism: Mechanism, layer: Layer, runs: _Runs, reason: str) -> None:
    """Keep for `sparsity_report` why a layer, with the parts that would go with it, is not under pruning."""
    for part in mechanism.parts_of(layer):
        runs.refused[part] = reason


def _report_nothing_pruned(model: Model, problems: dict[str, str], chosen: bool) -> None:
    """An error where layers were to be pruned and cannot; a warning, as TF-MOT has none, where there is no kernel."""
    listed = "; ".join(f"{name}: {reason}" for name, reason in problems.items())
    text = f"No layer of model {model.name!r} can be pruned. " + (
        listed or "None of those that layers=, the schedules and the policy leave has a kernel."
    )
    if chosen or not set(problems.values()) <= set(prunable.LEFT_ALONE.values()):
        raise ValueError(text)
    warnings.warn(text)


def _why_not(mechanism: Mechanism, layer: Layer, run: PruningRun) -> str | None:
    """Why a layer is not pruned; an empty string where there is nothing to prune, None where it is pruned."""
    parts = [part for part in mechanism.parts_of(layer) if prunable.can_be_pruned(part)]
    if not parts:
        return None if mechanism.may_add_sublayers(layer) else prunable.why_not_prunable(layer) or ""
    reasons = (mechanism.why_not(layer, run), *(prunable.why_not_settings(part, run) for part in parts))
    return next(filter(None, reasons), None)
