"""`edgeprune inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeprune.cli import options
from edgeprune.cli.files import TFLITE_SUFFIX, load_model_file, start_tensorflow
from edgeprune.cli.printing import show, show_json, show_tables


def inspect_command(
    model: Annotated[Path, typer.Argument(exists=True, help="A .keras, .h5 or .tflite file, or a SavedModel folder.")],
    input_shape: options.InputShapeOption = None,
    unsafe: options.UnsafeOption = False,
    custom: options.CustomOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show a model's layers, memory, groups of channels and what is frozen; of a .tflite file all that it holds."""
    shape = options.parse_input_shapes(input_shape)
    if model.suffix == TFLITE_SUFFIX:
        from edgeprune.report.file_inspection import inspect_tflite

        file = inspect_tflite(model)
        show_json(file.to_dict()) if as_json else show(file)
        return
    start_tensorflow()
    from edgeprune.report import inspection

    result = inspection.inspect(load_model_file(model, unsafe, custom), shape)
    if as_json:
        show_json(result.to_dict())
        return
    show_tables(result.table(), result.channel_table())
