"""What is known before a search: whether the original fits the board, and whether any model can hold the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edgeprune.bundle.microcontroller import check_operators
from edgeprune.search.budget import Budget
from edgeprune.search.engines.runner import Runner, Settings
from edgeprune.search.strategies.finalists import Outcome, broken_costs
from edgeprune.search.trial.file_costs import QuantizationLike, file_costs, untrained_file
from edgeprune.targets import Target
from edgeprune.types import Arrays, Model


def within_target(
    budget: Budget, model: Model, target: Target, quantization: QuantizationLike, samples: Arrays
) -> Budget:
    """The budget, with the memories of a board among the limits where the original does not fit into them.

    What no narrower model would change is refused: operators that the device has no kernels for.

    Args:
        budget: the limits that the user passed.
        model: the original.
        target: the device.
        quantization: of the original's file.
        samples: inputs.

    Raises:
        ValueError: the model cannot be converted, or the device cannot run it.
    """
    if target.kind != "microcontroller":
        return budget
    whole = budget.with_memories(target)
    added = set(whole.limits) - set(budget.limits)
    with untrained_file(model, quantization, samples, target) as path:
        check_operators(path, model, target, model.name)
        costs = file_costs(path, target, whole.limits) if added else {}
    return whole if added & {one.limit for one in whole.exceeded(costs)} else budget


def beyond_reach(
    runner: Runner,
    budget: Budget,
    narrowest: Mapping[int, Settings],
    costs_of: Callable[[Settings], Mapping[str, float] | None],
) -> Outcome | None:
    """Measure the narrowest model where it exceeds a limit on costs, so that nothing else need be tried.

    Args:
        runner: makes the trials.
        budget: the limits.
        narrowest: by the number of a way to quantize, the settings of the narrowest model.
        costs_of: returns what the file of a model that is not trained costs; None where that is not known.

    Returns:
        The nearest; None where the limits on costs can be held, or may be.
    """
    if not budget.costs:
        return None
    whole = runner.measured([{"target_macs": 1.0, "way": 0}])[0]
    if whole.state != "ok" or not broken_costs(budget, whole):
        return None
    figures: dict[int, Mapping[str, float]] = {}
    for way, settings in narrowest.items():
        costs = costs_of(settings)
        if costs is None:
            return None
        figures[way] = {**costs, "accuracy_drop": 0.0}
    nearest = min(figures, key=lambda way: budget.overshoot(figures[way]))
    exceeded = budget.exceeded(figures[nearest])
    if not exceeded:
        return None
    measured = [one for one in (whole, *runner.measured([narrowest[nearest]])) if one.state == "ok"]
    best = min(measured, key=lambda trial: budget.overshoot(trial.figures))
    return Outcome(best, False, f"even the narrowest model, of one channel in each group, exceeds {exceeded[0]}")
