"""Remove whole layers: residual blocks by their importance, and layers that compute nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.depth.blocks import BlockPlan as BlockPlan
    from edgeprune.depth.blocks import ScoredBlock as ScoredBlock
    from edgeprune.depth.blocks import plan_blocks as plan_blocks
    from edgeprune.depth.blocks import remove_blocks as remove_blocks
    from edgeprune.depth.identity import drop_identity_layers as drop_identity_layers
    from edgeprune.depth.residual_blocks import Block as Block
    from edgeprune.depth.residual_blocks import find_blocks as find_blocks

# Each public name and the module that defines it.
_HOME = {
    "Block": "edgeprune.depth.residual_blocks",
    "BlockPlan": "edgeprune.depth.blocks",
    "ScoredBlock": "edgeprune.depth.blocks",
    "drop_identity_layers": "edgeprune.depth.identity",
    "find_blocks": "edgeprune.depth.residual_blocks",
    "plan_blocks": "edgeprune.depth.blocks",
    "remove_blocks": "edgeprune.depth.blocks",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
