"""The journal of a search that never ran: every value in it is known."""

from __future__ import annotations

from edgeprune.search.curves.curves import Sensitivity, SensitivityCurve
from edgeprune.search.journal.search_record import SearchEnding, SearchHeader
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.trial.record import Candidate, Trial

HEADER = SearchHeader(
    model="net", model_fingerprint="abc", data_fingerprint="def", target="arduino-nano-33-ble",
    limits={"max_accuracy_drop": 0.02, "max_flash": 90_000.0}, settings={"epochs": 3, "search": "guided"}, seed=7,
    metric="accuracy", higher_is_better=True, baseline=0.9, macs=1000, params=400, num_samples=250,
    environment={"python": "3.11"}, widths={"stem": 8, "conv": 16}, frozen={"head": "output of the model (head)"},
)  # fmt: skip
CUT = Candidate({"stem": 4}, (), 0.0, "int8")
TRIALS = (
    Trial(0, "quick", {"target_macs": 0.5}, CUT, quick_score=0.7, accuracy_drop=0.2, macs=500, params=210, seconds=0.5),
    Trial(1, "measured", {"target_macs": 0.5}, CUT, quick_score=0.7, score=0.89, accuracy_drop=0.01, macs=500,
          params=210, size=3000, gzip_size=2000, flash=70_000, latency_ms=0.25, seconds=2.5),
    Trial(2, "measured", {"target_macs": 0.8}, CUT, "failed", error="RuntimeError: no kernel"),
    Trial(3, "measured", {"target_macs": 0.9}, CUT, quick_score=0.8, score=0.9, accuracy_drop=0.0, macs=900, size=5000),
    Trial(4, "measured", {"target_macs": 0.95}, CUT, quick_score=0.75, score=0.88, accuracy_drop=0.02, macs=950,
          size=5500),
)  # fmt: skip
CURVES = Sensitivity(
    "net", "channels", "accuracy", True, 0.9, "l2", True, 250,
    (SensitivityCurve("stem", (), 8, (2, 4), (0.88, 0.5)), SensitivityCurve("conv", (), 16, (8,), (0.89,))),
)  # fmt: skip
VERDICT = {
    "accepted": True, "exceeded": [], "metric": "accuracy", "before": 0.91, "after": 0.895, "lost": 0.015,
    "lost_low": -0.005, "lost_high": 0.035, "confidence": 0.95, "num_samples": 249,
    "measured": {"size": 3000, "flash": 70_001.0, "accuracy_drop": 0.015},
}  # fmt: skip
ENDING = SearchEnding(1, True, VERDICT, 0.5, ("more validation data would narrow it",))


def journal(folder, header=HEADER, trials=TRIALS, curves=CURVES, ending=ENDING):
    """A folder with the journal of such a search."""
    with TrialJournal(folder / "trials.jsonl", header) as writing:
        for trial in trials:
            writing.add(trial)
        if curves is not None:
            writing.guide_by(curves)
        if ending is not None:
            writing.end(ending)
    return folder
