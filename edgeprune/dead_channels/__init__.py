"""Channels whose value is the same whatever the input: found, and removed with their value added to what reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.dead_channels.removal import DeadChannels as DeadChannels
    from edgeprune.dead_channels.removal import find_dead_channels as find_dead_channels
    from edgeprune.dead_channels.removal import remove_dead_channels as remove_dead_channels

# Each public name and the module that defines it.
_HOME = {
    "DeadChannels": "edgeprune.dead_channels.removal",
    "find_dead_channels": "edgeprune.dead_channels.removal",
    "remove_dead_channels": "edgeprune.dead_channels.removal",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
