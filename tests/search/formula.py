"""A model whose costs and losses are formulas, for tests of what asks for trials."""

import math

from edgeprune.search.trial.record import Trial


def share_of(asked):
    """The share of the MACs that settings mean."""
    kept = asked.get("keep", {}).values()
    return asked["target_macs"] if "target_macs" in asked else math.prod(kept)


class Formula:
    """A model of 1,000 MACs and of size 100; the narrower it is, the more it loses.

    Training halves that; of what it makes up for, the first of its parts does a fifth.
    """

    baseline = 1.0
    narrow = ()  # ways to quantize with smaller files

    def __init__(
        self,
        budget,
        lost=lambda share: 0.1 * (1 / share - 1),
        unreachable=0.0,
        training=False,
        rounding=0.0,
        blocks=0.0,
    ):
        self.trials, self.is_training, self._lost, self._unreachable = [], training, lost, unreachable
        self._rounding = rounding
        self._blocks = blocks  # the share of the size that follows the number of blocks, of which there are 4

    def has_time(self, stage, epochs=0):
        return True

    def quick(self, several):
        return [self._trial("quick", one, self.lost_at(one)) for one in several]

    def measured(self, several):
        return [self._trial("measured", one, self.lost_at(one) * self._left(one)) for one in several]

    def _left(self, asked):
        """The share of a loss that training leaves."""
        if not self.is_training:
            return 1.0
        return 0.5 if "after" in asked else 0.9

    def lost_at(self, asked):
        better = {"l2": 1.0, "curves": 0.9, "local": 1.1}[asked.get("weighed_by", "l2")]
        return better * self._lost(share_of(asked)) * (2 if asked.get("num_blocks") else 1)

    def stop(self, settings, look, reason):
        self.trials.append(Trial(len(self.trials), "quick", settings, state="pruned", error=reason))

    def _trial(self, stage, asked, lost):
        for known in self.trials:
            if (known.stage, known.settings) == (stage, asked):
                return known
        share = share_of(asked)
        if share < self._unreachable:
            trial = Trial(len(self.trials), stage, asked, state="failed", error="ValueError: no")
        else:
            deep = self._blocks * (1 - asked.get("num_blocks", 0) / 4)
            size = 100 * (deep + (1 - self._blocks) * share) * (0.6 if asked.get("way") in self.narrow else 1)
            figures = {"macs": 1000 * share, "size": size, "gzip_size": size}
            if stage == "measured":
                rounding = self._rounding if asked["way"] == 0 else 0  # which the next way does not lose
                figures |= {"score": 1 - lost - rounding, "accuracy_drop": lost + rounding, "float_score": 1 - lost}
            else:
                figures |= {"quick_score": 1 - lost, "accuracy_drop": lost}
            trial = Trial(len(self.trials), stage, asked, **figures)
        self.trials.append(trial)
        return trial
