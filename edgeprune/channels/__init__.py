"""Channel removal: trace a model's channels, score them, plan which go, rebuild a smaller plain model.

    from edgeprune.channels import plan_channels, rule

    plan = plan_channels(model, macs=0.5, round_to=8)
    smaller = plan.apply()

    @rule(MyLayer)                      # what a custom layer does with channels, in a few lines
    def my_layer(call):
        call.index(call.layer.gain, 0, call.line(call.x, -1))
        return call.x

How rules are written is told in `edgeprune.channels.rules.registry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.channels.blocks import Block as Block
    from edgeprune.channels.blocks import BlockPlan as BlockPlan
    from edgeprune.channels.blocks import ScoredBlock as ScoredBlock
    from edgeprune.channels.blocks import find_blocks as find_blocks
    from edgeprune.channels.blocks import plan_blocks as plan_blocks
    from edgeprune.channels.blocks import remove_blocks as remove_blocks
    from edgeprune.channels.dead import DeadChannels as DeadChannels
    from edgeprune.channels.dead import find_dead_channels as find_dead_channels
    from edgeprune.channels.dead import remove_dead_channels as remove_dead_channels
    from edgeprune.channels.graph import ChannelGraph as ChannelGraph
    from edgeprune.channels.graph import Group as Group
    from edgeprune.channels.identity import drop_identity_layers as drop_identity_layers
    from edgeprune.channels.importance import Ranking as Ranking
    from edgeprune.channels.plan import Change as Change
    from edgeprune.channels.plan import ChannelPlan as ChannelPlan
    from edgeprune.channels.plan import PlannedGroup as PlannedGroup
    from edgeprune.channels.plan import plan_channels as plan_channels
    from edgeprune.channels.plan import prune_channels as prune_channels
    from edgeprune.channels.rules import Call as Call
    from edgeprune.channels.rules import CannotFollow as CannotFollow
    from edgeprune.channels.rules import rule as rule
    from edgeprune.channels.solve import Target as Target
    from edgeprune.channels.training import ChannelPruning as ChannelPruning
    from edgeprune.channels.verify import Verification as Verification

# Each public name and the module that defines it.
_HOME = {
    "Block": "edgeprune.channels.blocks",
    "BlockPlan": "edgeprune.channels.blocks",
    "Call": "edgeprune.channels.rules",
    "CannotFollow": "edgeprune.channels.rules",
    "Change": "edgeprune.channels.plan",
    "ChannelGraph": "edgeprune.channels.graph",
    "ChannelPlan": "edgeprune.channels.plan",
    "ChannelPruning": "edgeprune.channels.training",
    "DeadChannels": "edgeprune.channels.dead",
    "Group": "edgeprune.channels.graph",
    "PlannedGroup": "edgeprune.channels.plan",
    "Ranking": "edgeprune.channels.importance",
    "ScoredBlock": "edgeprune.channels.blocks",
    "Target": "edgeprune.channels.solve",
    "Verification": "edgeprune.channels.verify",
    "drop_identity_layers": "edgeprune.channels.identity",
    "find_blocks": "edgeprune.channels.blocks",
    "find_dead_channels": "edgeprune.channels.dead",
    "plan_blocks": "edgeprune.channels.blocks",
    "plan_channels": "edgeprune.channels.plan",
    "prune_channels": "edgeprune.channels.plan",
    "remove_blocks": "edgeprune.channels.blocks",
    "remove_dead_channels": "edgeprune.channels.dead",
    "rule": "edgeprune.channels.rules",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
