"""A channel plan as JSON. People edit it by hand, so it is read strictly."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from types import UnionType
from typing import Any, cast

from edgeprune.channels.plan.importance import Ranking
from edgeprune.channels.plan.reduction import REDUCTIONS
from edgeprune.channels.plan.solver import PLAN_KINDS, PlanTarget

FORMAT = 1


@dataclass(frozen=True)
class StoredPlan:
    """What a file says.

    Attributes:
        model: the model's name.
        weights: the shapes of the model's weights.
        groups: by the name of a group that loses channels how many it has, and the indices of the kept ones.
        frozen: by the name of a group the reason why it keeps all its channels.
        target: what was requested and achieved; None for a plan made by hand.
        ranking: what ranked the channels; None for a plan made by hand, or where the file does not say it.
    """

    model: str
    weights: list[list[int]]
    groups: dict[str, tuple[int, list[int]]]
    frozen: dict[str, str]
    target: PlanTarget | None
    ranking: Ranking | None


def write_plan(plan: StoredPlan) -> str:
    """The text that `read_plan` reads."""
    content = {
        "format": FORMAT,
        "model": plan.model,
        "weights": plan.weights,
        "groups": {name: {"channels": channels, "kept": kept} for name, (channels, kept) in plan.groups.items()},
        "frozen": plan.frozen,
        "target": dataclasses.asdict(plan.target) if plan.target else None,
        "ranking": dataclasses.asdict(plan.ranking) if plan.ranking else None,
    }
    return json.dumps(content, indent=1)


def read_plan(text: str) -> StoredPlan:
    """Read what `write_plan` wrote.

    Raises:
        ValueError: the text is no plan; the message names what is wrong in it.
    """
    try:
        content = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"This is no channel plan: {str(error)[:200]!r}") from error
    version = _entry(content, "format", int)
    if version != FORMAT:
        raise ValueError(f"The plan has format {version}; this version reads format {FORMAT}.")
    groups = _entry(content, "groups", dict)
    frozen = _entry(content, "frozen", dict)
    _require(all(isinstance(reason, str) for reason in frozen.values()), "'frozen' must name a reason for each group")
    return StoredPlan(
        model=_entry(content, "model", str),
        weights=[_whole_numbers(shape, "'weights' must be shapes") for shape in _entry(content, "weights", list)],
        groups={name: _group(name, entry) for name, entry in groups.items()},
        frozen=frozen,
        target=_target(_entry(content, "target", dict | None)),
        ranking=_ranking(_entry(content, "ranking", dict | None) if "ranking" in content else None),
    )


def _group(name: str, entry: object) -> tuple[int, list[int]]:
    otherwise = f"group {name!r} must list the kept indices, each once"
    kept = _whole_numbers(_entry(entry, "kept", list), otherwise)
    _require(len(set(kept)) == len(kept), otherwise)
    return _entry(entry, "channels", int), kept


def _target(entry: dict[str, Any] | None) -> PlanTarget | None:
    if entry is None:
        return None
    kind = _entry(entry, "kind", str)
    _require(kind in PLAN_KINDS, f"the target's 'kind' must be one of {list(PLAN_KINDS)}")
    fractions = [_entry(entry, key, int | float) for key in ("requested", "achieved")]
    _require(all(0 <= fraction <= 1 for fraction in fractions), "the target's fractions must be between 0 and 1")
    return PlanTarget(kind, *fractions)


def _ranking(entry: dict[str, Any] | None) -> Ranking | None:
    if entry is None:
        return None
    ranking = Ranking(_entry(entry, "importance", str), _entry(entry, "reduction", str | None))
    _require(ranking.reduction in (None, *REDUCTIONS), f"the ranking's 'reduction' must be one of {list(REDUCTIONS)}")
    return ranking


def _entry(content: object, key: str, kind: type | UnionType) -> Any:
    _require(isinstance(content, dict) and key in content, f"it has no {key!r}")
    value = cast(dict, content)[key]
    _require(isinstance(value, kind) and not isinstance(value, bool), f"{key!r} holds {repr(value)[:80]}")
    return value


def _whole_numbers(values: object, otherwise: str) -> list[int]:
    _require(isinstance(values, list) and all(type(number) is int for number in values), otherwise)
    return cast(list[int], values)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"This is no channel plan: {what}.")
