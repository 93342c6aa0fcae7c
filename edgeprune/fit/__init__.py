"""Train with a progress bar: on, while a model is pruned, and after a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.fit.compiling import check_and_compile as check_and_compile
    from edgeprune.fit.distilling import distill as distill
    from edgeprune.fit.training import fit as fit
    from edgeprune.fit.tuning import SCHEDULES as SCHEDULES
    from edgeprune.fit.tuning import fine_tune as fine_tune
    from edgeprune.fit.tuning import prune_and_fit as prune_and_fit

# Each public name and the module that defines it.
_HOME = {
    "SCHEDULES": "edgeprune.fit.tuning",
    "check_and_compile": "edgeprune.fit.compiling",
    "distill": "edgeprune.fit.distilling",
    "fine_tune": "edgeprune.fit.tuning",
    "fit": "edgeprune.fit.training",
    "prune_and_fit": "edgeprune.fit.tuning",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
