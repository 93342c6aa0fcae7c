"""Recipes: the settings of a search as a file that people write, and what a search found as one that makes it again.

compress(model, train, validation, **read_settings("budget.yaml"))
applied = ep.apply_recipe("compressed/recipe.json", model, train)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, final, get_args

from edgeprune import flavor
from edgeprune.atomic import atomic_path, check_paths
from edgeprune.layer_patterns import similar
from edgeprune.measure.predictions import gather
from edgeprune.schemes import Scheme
from edgeprune.search.budget import LIMITS, Budget
from edgeprune.search.journal.measurements import data_fingerprint, fingerprint
from edgeprune.search.trial.job import Samples, TrialSettings, Work
from edgeprune.search.trial.maker import Maker
from edgeprune.search.trial.record import Candidate
from edgeprune.search.verdict.gate import hold_out
from edgeprune.targets import target as target_of
from edgeprune.types import DataLike, Model, PathLike

RECIPE_FORMAT = 1
_FORMAT_KEY = "edgeprune recipe"
# The arguments of `compress` that are settings: what belongs to one run, such as its data, is none.
SETTINGS = (
    "target",
    *LIMITS,
    "metric",
    "quantization",
    "search",
    "engine",
    "address",
    "num_workers",
    "cpus_per_trial",
    "gpus_per_trial",
    "epochs",
    "batch_size",
    "learning_rate",
    "num_trials",
    "num_finalists",
    "time_budget",
    "bundle",
    "log",
    "seed",
)


DataOfRecipe = Literal["train", "validation", "half of validation"]


@final
@dataclass(frozen=True)
class Recipe:
    """How a model was made smaller: enough to do it again.

    Attributes:
        settings: those of the search, by the names of `compress`'s arguments.
        candidate: what is removed, and how the file is quantized.
        data: which of the search's data it is made from: `"train"`, or where nothing was trained `"validation"`, or the
            half of it that the search looked at.
        model_fingerprint: of the original.
        data_fingerprint: of these data.
        size: bytes of the file.
    """

    settings: Mapping[str, Any]
    candidate: Candidate
    data: DataOfRecipe
    model_fingerprint: str
    data_fingerprint: str
    size: int

    def save(self, path: PathLike) -> None:
        """Write the recipe to a JSON file; one that exists is replaced."""
        content = {
            _FORMAT_KEY: RECIPE_FORMAT,
            "settings": dict(self.settings),
            "candidate": self.candidate.to_dict(),
            "data": self.data,
            "model_fingerprint": self.model_fingerprint,
            "data_fingerprint": self.data_fingerprint,
            "size": self.size,
        }
        with atomic_path(Path(path)) as unfinished:
            unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: PathLike) -> Recipe:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no recipe that a search wrote.
        """
        content = _read(Path(path))
        try:
            if content.get(_FORMAT_KEY) != RECIPE_FORMAT:
                raise ValueError(f"its {_FORMAT_KEY!r} is not {RECIPE_FORMAT}")
            return cls(
                settings=dict(content["settings"]),
                candidate=Candidate.from_dict(content["candidate"]),
                data=_data_of(content["data"]),
                model_fingerprint=str(content["model_fingerprint"]),
                data_fingerprint=str(content["data_fingerprint"]),
                size=int(content["size"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no recipe that compress wrote: {error}.") from error


def _data_of(name: object) -> DataOfRecipe:
    if name not in get_args(DataOfRecipe):
        raise ValueError(f"its 'data' is {name!r}, and none of {', '.join(map(repr, get_args(DataOfRecipe)))}")
    return cast(DataOfRecipe, name)


@final
@dataclass(frozen=True)
class AppliedRecipe:
    """What a recipe made.

    Attributes:
        model: the Keras model.
        path: its file; None where none was asked for.
        size: the bytes of the file; None without one.
        notes: what the user should know, a sentence each.
    """

    model: Model
    path: Path | None
    size: int | None
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """The file and the notes."""
        written = [] if self.path is None else [f"{self.path}: {self.size:,} bytes"]
        return "\n".join([*written, *(f"note: {note}" for note in self.notes)])


def apply_recipe(
    recipe: Recipe | PathLike,
    model: Model,
    data: DataLike,
    *,
    output: PathLike | None = None,
    overwrite: bool = False,
) -> AppliedRecipe:
    """Make a model again as `compress` made it: cut, made up for, trained and quantized, without a search.

    On the same model and data the weights are the same but for rounding, and the file has the same size.

    Args:
        recipe: what `compress` wrote to `recipe.json`, or its path.
        model: the original, or another one of the same architecture. It is not changed.
        data: what was passed to `compress` as `train`; as `validation` where `train` was None.
        output: the .tflite file to write; None to write none.
        overwrite: whether a file that exists may be replaced.

    Returns:
        The model and its file.

    Raises:
        FileExistsError: `output` exists, and `overwrite` is false.
        TypeError: an argument is of the wrong type.
        ValueError: it is no recipe; the model lacks what it names, or the data do not fit the model.

    Example:
        >>> result = ep.compress(model, None, (x, y), max_accuracy_drop=1.0, num_trials=4, num_finalists=1)
        >>> again = apply_recipe(result.recipe, model, (x, y), output="again.tflite")
        >>> again.path.stat().st_size == result.path.stat().st_size
        True
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    if output is not None:
        check_paths(Path(output), overwrite=overwrite)
    flavor.check_built_model(model)
    samples, settings = Samples(*gather(model, data)), recipe.settings
    if recipe.data == "half of validation":
        samples = Samples(*hold_out(**vars(samples), seed=settings["seed"])[0])
    work = Work(
        model=model,
        train=samples if recipe.data == "train" else None,
        judged=samples,
        metric=None,
        budget=Budget(max_accuracy_drop=1.0),
        settings=trial_settings(settings),
    )
    maker = Maker(work)
    smaller = maker.finished(recipe.candidate)
    notes = []
    if fingerprint(model, [], []) != recipe.model_fingerprint:
        notes.append("the model is another one than the recipe was made for")
    if data_fingerprint([*vars(samples).values()]) != recipe.data_fingerprint:
        notes.append("the data are other ones than the recipe was made on")
    if output is None:
        return AppliedRecipe(smaller, None, None, tuple(notes))
    path = Path(output)
    with atomic_path(path, overwrite=overwrite) as unfinished:
        maker.write(smaller, recipe.candidate, unfinished)
    size = path.stat().st_size
    if size != recipe.size:
        notes.append(f"the file has {size:,} bytes, and that of the recipe {recipe.size:,}")
    return AppliedRecipe(smaller, path, size, tuple(notes))


def trial_settings(settings: Mapping[str, Any]) -> TrialSettings:
    """How trials are made, from the settings of a search."""
    return TrialSettings(
        target=target_of(settings["target"]),
        epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        seed=settings["seed"],
    )


def read_settings(path: PathLike) -> dict[str, Any]:
    """The settings of a search from a YAML or JSON file, also from the recipe of another search.

    Args:
        path: the file: a mapping of names of `compress`'s arguments to values.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it is YAML, and PyYAML is not installed.
        ValueError: it is no such mapping, or a name is unknown.
    """
    content = _read(Path(path))
    settings = content["settings"] if _FORMAT_KEY in content else content
    if not isinstance(settings, Mapping):
        raise ValueError(f"{path} holds no settings: a mapping of names to values is expected.")
    for name in settings:
        if name not in SETTINGS:
            raise ValueError(f"{path}: there is no setting {name!r}.{similar(str(name), SETTINGS)}")
    try:
        return {name: _with_schemes(value) if name == "quantization" else value for name, value in settings.items()}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: quantization holds no Scheme: {error}") from error


def _with_schemes(value: Any) -> Any:
    """A way to quantize, or several, in which mappings are the arguments of a `Scheme`."""
    if isinstance(value, list):
        return [_with_schemes(one) for one in value]
    return Scheme.from_dict(value) if isinstance(value, Mapping) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8: byte {error.start}.") from error
    if path.suffix in (".yaml", ".yml"):
        try:
            import yaml
        except ImportError as error:
            raise ImportError(f"{path} is YAML, which needs PyYAML: pip install 'edgeprune[search]'") from error
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    else:
        try:
            content = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings: a mapping of names to values is expected.")
    return content
