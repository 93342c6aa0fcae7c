"""What to remove, found by measuring: how much each part of a model matters.

    curves = edgeprune.sensitivity(model, (x_test, y_test))

`Candidates` computes what smaller models of one traced model would, without building them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.search.candidates import Candidates as Candidates
    from edgeprune.search.curves import Sensitivity as Sensitivity
    from edgeprune.search.curves import SensitivityCurve as SensitivityCurve

# Each public name and the module that defines it.
_HOME = {
    "Candidates": "edgeprune.search.candidates",
    "Sensitivity": "edgeprune.search.curves",
    "SensitivityCurve": "edgeprune.search.curves",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
