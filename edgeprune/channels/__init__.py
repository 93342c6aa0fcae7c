"""Channel removal: trace a model's channels, score them, plan which are removed, rebuild a smaller plain model.

    from edgeprune.channels import plan_channels, rule

    plan = plan_channels(model, target_macs=0.5, round_to=8)
    smaller = plan.apply()

    @rule(MyLayer)                      # what a custom layer does with channels, in a few lines
    def my_layer(call):
        call.index(call.layer.gain, 0, call.line(call.x, -1))
        return call.x

Where the axes of its weights are enough, `axes_rule(MyLayer, weights={"kernel": ("in", "units")}, output="units")` is
enough: the layer keeps its class and is made again with fewer `units`.

How rules are written is described in `edgeprune.channels.graph.rules.registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.channels.callback import ChannelPruning as ChannelPruning
    from edgeprune.channels.graph.coupling import ChannelGraph as ChannelGraph
    from edgeprune.channels.graph.coupling import Group as Group
    from edgeprune.channels.graph.rules import Call as Call
    from edgeprune.channels.graph.rules import CannotFollow as CannotFollow
    from edgeprune.channels.graph.rules import axes_rule as axes_rule
    from edgeprune.channels.graph.rules import rule as rule
    from edgeprune.channels.plan.channel_plan import Change as Change
    from edgeprune.channels.plan.channel_plan import ChannelPlan as ChannelPlan
    from edgeprune.channels.plan.channel_plan import PlannedGroup as PlannedGroup
    from edgeprune.channels.plan.importance import Ranking as Ranking
    from edgeprune.channels.plan.planning import plan_channels as plan_channels
    from edgeprune.channels.plan.planning import prune_channels as prune_channels
    from edgeprune.channels.plan.solver import PlanTarget as PlanTarget
    from edgeprune.channels.rebuild.proof import Proof as Proof
    from edgeprune.channels.reconstruct.recalibration import recalibrate_batch_norm as recalibrate_batch_norm
    from edgeprune.channels.reconstruct.report import Reconstruction as Reconstruction
    from edgeprune.channels.reconstruct.report import SolvedLayer as SolvedLayer

# Each public name and the module that defines it.
_HOME = {
    "Call": "edgeprune.channels.graph.rules",
    "CannotFollow": "edgeprune.channels.graph.rules",
    "Change": "edgeprune.channels.plan.channel_plan",
    "ChannelGraph": "edgeprune.channels.graph.coupling",
    "ChannelPlan": "edgeprune.channels.plan.channel_plan",
    "ChannelPruning": "edgeprune.channels.callback",
    "Group": "edgeprune.channels.graph.coupling",
    "PlanTarget": "edgeprune.channels.plan.solver",
    "PlannedGroup": "edgeprune.channels.plan.channel_plan",
    "Proof": "edgeprune.channels.rebuild.proof",
    "Reconstruction": "edgeprune.channels.reconstruct.report",
    "Ranking": "edgeprune.channels.plan.importance",
    "SolvedLayer": "edgeprune.channels.reconstruct.report",
    "axes_rule": "edgeprune.channels.graph.rules",
    "plan_channels": "edgeprune.channels.plan.planning",
    "prune_channels": "edgeprune.channels.plan.planning",
    "recalibrate_batch_norm": "edgeprune.channels.reconstruct.recalibration",
    "rule": "edgeprune.channels.graph.rules",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
