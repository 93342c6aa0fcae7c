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

import importlib
from typing import Any

# Each public name and the module that defines it.
_HOME = {
    "ChannelGraph": "edgeprune.channels.graph",
    "ChannelPlan": "edgeprune.channels.plan",
    "ChannelPruning": "edgeprune.channels.training",
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgeprune.channels' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
