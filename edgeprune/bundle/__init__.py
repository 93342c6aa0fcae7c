"""A directory that developers of apps and firmware build on: the model, code that calls it, values to test it with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.lazy import lazy_names

if TYPE_CHECKING:  # for editors and type checkers
    from edgeprune.bundle.bundle import Bundle as Bundle
    from edgeprune.bundle.bundle import export_bundle as export_bundle
    from edgeprune.bundle.content import Preprocessing as Preprocessing

# Each public name and the module that defines it.
_HOME = {
    "Bundle": "edgeprune.bundle.bundle",
    "Preprocessing": "edgeprune.bundle.content",
    "export_bundle": "edgeprune.bundle.bundle",
}

__all__ = sorted(_HOME)

if not TYPE_CHECKING:  # a type checker reports names that are not above
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
