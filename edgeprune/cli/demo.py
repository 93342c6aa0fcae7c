"""`edgeprune demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import start_tensorflow
from edgeprune.cli.printing import show, show_json, show_tables
from edgeprune.types import Flavor


def demo_command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path("tflite_out"),
    flavor: Annotated[Flavor, typer.Option(help="Which Keras trains.")] = "keras",
    sparsity: options.SparsityOption = 0.8,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, max=options.LARGEST, help="Passes over the data, dense and pruning alike; fewer are faster."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=options.LARGEST, help="Seed of weights and order.")] = 1,
    overwrite: options.OverwriteOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Train, prune, convert, verify and time a small net on images inside the package."""
    from edgeprune.demo import DemoSettings, check_files, run_demo
    from edgeprune.report.tables import formats_table, summary

    passes = {} if epochs is None else {"dense_epochs": epochs, "pruned_epochs": epochs}
    recipe = DemoSettings(flavor=flavor, sparsity=sparsity, seed=seed, **passes)
    check_files(output, overwrite)
    start_tensorflow()
    result = run_demo(output, recipe, overwrite=overwrite)
    if as_json:
        show_json(result.to_dict())
        return
    show_tables(formats_table(result.rows, f"ResNet-8 on {result.test_images:,} images of Fashion-MNIST"))
    show(f"\n{summary(result.rows)}")
    show(f"{result.seconds:.0f} s. The files are in {result.folder}/")
