"""`edgeprune targets`."""

from __future__ import annotations

from edgeprune.cli import options
from edgeprune.cli.printing import show, show_json


def targets_command(as_json: options.JsonOption = False) -> None:
    """List the devices that `edgeprune bundle` writes for."""
    from edgeprune.targets import TARGETS
    from edgeprune.text_table import text_table

    if as_json:
        show_json({entry.name: entry.to_dict() for entry in TARGETS.values()})
        return
    rows = [
        (
            entry.name,
            entry.kind,
            *(f"{size // 1024:,}" if size else "" for size in (entry.ram_bytes, entry.flash_bytes)),
            str(entry.round_to),
            " ".join(quantization or "none" for quantization in entry.quantizations),
            entry.description,
        )
        for entry in TARGETS.values()
    ]
    header = ("target", "kind", "RAM KiB", "flash KiB", "round to", "quantizations", "description")
    show(text_table(header, rows, left=(0, 1, 5, 6), below=(6, 5)))
