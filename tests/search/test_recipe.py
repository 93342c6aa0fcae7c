"""Recipes: read, refused, and applied to the same data, which makes the same model again."""

import inspect
import json

import numpy as np
import pytest
from search.small_net import data, trained_net

import edgeprune as ep
from edgeprune.search import recipe as recipes
from edgeprune.search.trial.record import Candidate
from edgeprune.search.verdict.ending import plain

OF_A_RUN = {"model", "train", "validation", "test", "output_dir", "resume", "verbose"}


def test_every_setting_of_compress_may_be_in_a_recipe():
    assert set(recipes.SETTINGS) == set(inspect.signature(ep.compress).parameters) - OF_A_RUN


def test_settings_are_read_from_yaml_and_json(tmp_path):
    wanted = {"target": "cortex-m", "max_accuracy_drop": "1%", "quantization": ["int8", None], "epochs": 2}
    yaml = tmp_path / "budget.yaml"
    yaml.write_text("target: cortex-m\nmax_accuracy_drop: 1%\nquantization: [int8, null]\nepochs: 2\n")
    plain = tmp_path / "budget.json"
    plain.write_text(json.dumps(wanted))
    assert recipes.read_settings(yaml) == recipes.read_settings(plain) == wanted
    for text, words in (
        ("epoch: 2", "no setting 'epoch'. Did you mean 'epochs'?"),
        ("- 2", "holds no settings"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not YAML"),
    ):
        yaml.write_text(text)
        with pytest.raises(ValueError, match=words.replace("?", r"\?")):
            recipes.read_settings(yaml)
    plain.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        recipes.read_settings(plain)
    with pytest.raises(ValueError, match="is no recipe that compress wrote"):
        plain.write_text("{}")
        ep.Recipe.load(plain)


def test_schemes_are_settings_too(tmp_path):
    scheme = ep.Scheme(4, 8, layers={"head": 8, "stem": 8})
    path = tmp_path / "budget.yaml"
    path.write_text("quantization: {weight_bits: 4, activation_bits: 8, layers: {head: 8, stem: 8}}\n")
    assert recipes.read_settings(path) == {"quantization": scheme}
    recipe = ep.Recipe({"quantization": plain([scheme, "int8", None])}, Candidate(), "train", "", "", 1)
    recipe.save(tmp_path / "recipe.json")  # as a search writes it
    assert recipes.read_settings(tmp_path / "recipe.json") == {"quantization": [scheme, "int8", None]}
    path.write_text("quantization: {weights: 4}\n")
    with pytest.raises(ValueError, match=r"budget.yaml: quantization holds no Scheme: .*'weights'"):
        recipes.read_settings(path)


def test_without_pyyaml_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    (tmp_path / "budget.yml").write_text("epochs: 2")
    with pytest.raises(ImportError, match=r"pip install 'edgeprune\[search\]'"):
        recipes.read_settings(tmp_path / "budget.yml")


@pytest.mark.parametrize(
    ("trains", "test"), [pytest.param(True, None, marks=pytest.mark.slow), (False, None), (False, data(60, 4))]
)
def test_a_recipe_makes_the_same_model_again(trains, test, tmp_path):
    model, validation = trained_net(), data(120, 1)
    train = data(96, 2) if trains else None
    settings = {"max_accuracy_drop": 0.3, "num_trials": 3, "num_finalists": 1, "epochs": 1, "seed": 3}
    result = ep.compress(
        model, train, validation, test, target="cortex-m", output_dir=tmp_path, bundle=False, verbose=False, **settings
    )
    assert not result.candidate.is_whole and result.verdict.num_samples == 60
    applied = ep.apply_recipe(result.recipe, model, train or validation, output=tmp_path / "again.tflite")
    for one, other in zip(result.model.get_weights(), applied.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert applied.size == result.path.stat().st_size and applied.notes == () and "again.tflite" in str(applied)
    stored = recipes.read_settings(result.recipe)
    assert stored["max_accuracy_drop"] == 0.3 and stored["target"] == "cortex-m" and stored["seed"] == 3
    x, y = train or validation
    if not trains:  # on other data, which is said
        other = ep.apply_recipe(ep.Recipe.load(result.recipe), model, (x + 1, y))
        assert other.path is None and other.notes == ("the data are other ones than the recipe was made on",)
        with pytest.raises(FileExistsError):
            ep.apply_recipe(result.recipe, model, (x, y), output=tmp_path / "again.tflite")
        stranger = ep.Recipe(stored, Candidate({"third": 4}), "validation", "", "", 0)
        with pytest.raises(ValueError, match="has no group 'third'"):
            ep.apply_recipe(stranger, model, (x, y))
