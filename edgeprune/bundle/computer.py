"""Write what the developer of a program on a small computer, such as a Raspberry Pi, needs: a class in Python.

`bundle.export_bundle` calls `write`.
"""

from __future__ import annotations

from typing import Any

from edgeprune.bundle.application import app_figures, python_values, write_application, write_text
from edgeprune.bundle.content import BundleContent
from edgeprune.bundle.rendering import render, require_jinja2


def check_installed() -> None:
    """Say what to install where something is missing that computers' bundles need.

    Raises:
        ImportError: the templates cannot be filled in.
    """
    require_jinja2()


def write(content: BundleContent) -> dict[str, Any]:
    """Write the computer's part of a bundle.

    Args:
        content: what the bundle is written from. Metadata are written into its file.

    Returns:
        What was measured, for the model card: sizes, latency and the machine, zeros and channels.

    Raises:
        ValueError: an input or an output is of a type that no code is written for.
    """
    application = write_application(content)
    write_text(content.folder / "README.md", render("computer/README.md", **python_values(application)))
    return app_figures(content)
