"""`edgeprune apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import (
    MODEL_SUFFIXES,
    TFLITE_SUFFIX,
    check_output_paths,
    load_model_file,
    open_data_option,
    save_model,
    start_tensorflow,
    write_files,
)
from edgeprune.cli.printing import show


def apply_command(
    recipe: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The recipe.json that compress wrote.")],
    model: options.ModelArgument,
    data: options.DataOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .tflite file to write.")],
    keras_output: Annotated[Path | None, typer.Option(help="Also write the Keras model: a .keras file.")] = None,
    label_columns: options.LabelColumnsOption = None,
    overwrite: options.OverwriteOption = False,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
) -> None:
    """Make a model again as compress made it, from its recipe: the same cut, training and quantization, no search."""
    check_output_paths({output: (TFLITE_SUFFIX,), keras_output: MODEL_SUFFIXES}, overwrite)
    source = open_data_option(data, label_columns)
    from edgeprune.search.recipe import Recipe

    found = Recipe.load(recipe)
    start_tensorflow()
    from edgeprune.search.recipe import apply_recipe

    keras_model = load_model_file(model, unsafe, custom, found.settings["seed"])
    assert source is not None, "--data is required"
    samples = source.read(keras_model)
    made_from = samples.train if found.data == "train" else samples.test
    applied = apply_recipe(found, keras_model, made_from, output=output, overwrite=overwrite)
    if keras_output is not None:
        write_files({keras_output: lambda path: save_model(applied.model, path)}, overwrite)
    show(applied)
