"""`edgeprune targets`."""

from __future__ import annotations

from edgeprune.cli.options import Json
from edgeprune.cli.printing import show_json, show_table


def targets(as_json: Json = False) -> None:
    """List the devices that `edgeprune bundle` writes for."""
    from edgeprune.targets import TARGETS

    if as_json:
        show_json({entry.name: entry.to_dict() for entry in TARGETS.values()})
        return
    from rich.table import Table

    table = Table("target", "kind", "quantizations", "RAM", "flash", "round to", "description")
    for entry in TARGETS.values():
        kinds = ", ".join(quantization or "none" for quantization in entry.quantizations)
        memories = [f"{size // 1024:,} KiB" if size else "" for size in (entry.ram_bytes, entry.flash_bytes)]
        table.add_row(entry.name, entry.kind, kinds, *memories, str(entry.round_to), entry.description)
    show_table(table)
