"""What to remove, found by measuring: how much each part of a model matters.

    curves = edgeprune.sensitivity(model, (x_test, y_test))

`Candidates` computes what smaller models of one traced model would, without building them; `QuickReconstruction` gives
them the weights that make up for what they lack.

    candidates, solver = Candidates(graph, x), QuickReconstruction(graph, x)
    outputs = candidates.outputs(plan.kept_mask, solver.values(plan.kept_mask))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.search.candidates import Candidates as Candidates
    from edgeprune.search.curves import Sensitivity as Sensitivity
    from edgeprune.search.curves import SensitivityCurve as SensitivityCurve
    from edgeprune.search.quick_reconstruction import QuickReconstruction as QuickReconstruction

# Each public name and the module that defines it.
_HOME = {
    "Candidates": "edgeprune.search.candidates",
    "QuickReconstruction": "edgeprune.search.quick_reconstruction",
    "Sensitivity": "edgeprune.search.curves",
    "SensitivityCurve": "edgeprune.search.curves",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
