"""What to remove, found by measuring: how much each part of a model matters, and from a budget to a model.

    curves = edgeprune.sensitivity(model, (x_test, y_test))

`Candidates` computes what smaller models of one traced model would, without building them; `QuickReconstruction` solves
the weights that make up for what they lack.

    candidates, solver = Candidates(graph, x), QuickReconstruction(graph, x)
    outputs = candidates.outputs(plan.kept_mask, solver.values(plan.kept_mask))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.search.curves.curves import Sensitivity as Sensitivity
    from edgeprune.search.curves.curves import SensitivityCurve as SensitivityCurve
    from edgeprune.search.journal.search_record import SearchEnding as SearchEnding
    from edgeprune.search.journal.search_record import SearchHeader as SearchHeader
    from edgeprune.search.journal.search_record import SearchRecord as SearchRecord
    from edgeprune.search.journal.search_record import read_search as read_search
    from edgeprune.search.trial.candidates import Candidates as Candidates
    from edgeprune.search.trial.quick_reconstruction import QuickReconstruction as QuickReconstruction
    from edgeprune.search.trial.record import Candidate as Candidate
    from edgeprune.search.trial.record import Trial as Trial

# Each public name and the module that defines it.
_HOME = {
    "Candidate": "edgeprune.search.trial.record",
    "Candidates": "edgeprune.search.trial.candidates",
    "QuickReconstruction": "edgeprune.search.trial.quick_reconstruction",
    "SearchEnding": "edgeprune.search.journal.search_record",
    "SearchHeader": "edgeprune.search.journal.search_record",
    "SearchRecord": "edgeprune.search.journal.search_record",
    "Sensitivity": "edgeprune.search.curves.curves",
    "SensitivityCurve": "edgeprune.search.curves.curves",
    "Trial": "edgeprune.search.trial.record",
    "read_search": "edgeprune.search.journal.search_record",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
