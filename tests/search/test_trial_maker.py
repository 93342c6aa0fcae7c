"""What may be done to a model in a trial: zeros, 4 bits, training for the rounding, blocks, widths within limits."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from search.small_net import data, trained_net
from search.test_journal_file import SEARCH

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.schemes import scheme_of
from edgeprune.search.budget import Budget
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.strategies.search_space import SearchSpace, ways_of
from edgeprune.search.trial import file_costs
from edgeprune.search.trial.files import TrialFiles
from edgeprune.search.trial.job import Job, Samples, TrialSettings, Work
from edgeprune.search.trial.maker import Maker
from edgeprune.search.trial.record import Candidate
from edgeprune.targets import target

NO_FILES = TrialFiles(Path("no_trials"))


@pytest.fixture(scope="module")
def work():
    settings = TrialSettings(target("phone"), 1, 32, 0.01, 0)
    budget = Budget(max_gzip_size="1 MB", max_size="1 MB")
    return Work(trained_net(), Samples(*data(96, 2)), Samples(*data(80, 1)), None, budget, settings)


@pytest.fixture(scope="module")
def maker(work):
    return Maker(work)


def both(maker, candidate):
    candidate = dataclasses.replace(candidate, epochs=(maker.work.settings.epochs,) if maker.work.is_training else ())
    quick, measured = (maker.made(Job(stage, candidate)) for stage in ("quick", "measured"))
    assert quick.state == measured.state == "ok", (quick.error, measured.error)
    return quick, measured


def test_zeros_are_in_the_weights_and_make_the_file_smaller_once_packed(maker):
    widths = {"first": 16}
    (quick, dense), (sparse_quick, sparse) = (
        both(maker, Candidate(widths, sparsity=zeros, quantization="int8")) for zeros in (0.0, 0.75)
    )
    model = maker.untrained(Candidate(widths, quantization="int8"))
    model.set_weights(sparse.weights)
    kernel = model.get_layer("second").kernel.numpy()
    assert kernel.shape == (16, 32) and (kernel == 0).mean() == 0.75
    assert sparse.figures["gzip_size"] < dense.figures["gzip_size"]
    assert sparse_quick.figures["gzip_size"] < quick.figures["gzip_size"]
    assert sparse_quick.figures["macs"] == dense.figures["macs"] == 12 * 16 + 16 * 32 + 32 * 3


def test_layers_that_gain_most_keep_8_bits_within_the_bytes(maker):
    four = Candidate({"first": 16}, quantization="int4", epochs=(1,))
    eight = dataclasses.replace(four, quantization="int8")
    _, narrow = both(maker, four)
    _, wide = both(maker, eight)
    more = (wide.figures["size"] - narrow.figures["size"]) // 2
    chosen = maker.with_wider_layers(four, narrow.weights, int(more))
    scheme = chosen.quantization
    assert scheme.weight_bits == 4 and set(scheme.layer_bits.values()) == {8} and scheme.layers
    _, mixed = both(maker, chosen)
    assert narrow.figures["size"] < mixed.figures["size"] <= narrow.figures["size"] + more
    assert dataclasses.replace(chosen, quantization="int4") == four
    # With no bytes it is the candidate itself, with those of all layers the one of 8 bits.
    assert maker.with_wider_layers(four, narrow.weights, 0) == four
    assert maker.with_wider_layers(four, narrow.weights, 10**6) == eight


@pytest.mark.parametrize("device", ["phone", "cortex-m", "ethos-u55-128"])
def test_the_size_of_a_file_of_4_bits_is_known_before_it_is_trained(device, work):
    settings = dataclasses.replace(work.settings, target=target(device))
    maker = Maker(dataclasses.replace(work, train=None, settings=settings, budget=Budget(max_size="1 MB")))
    quick, measured = both(maker, Candidate({"first": 16}, quantization=ways_of("int4", target(device), False)[0][0]))
    assert quick.figures["size"] == measured.figures["size"]


@pytest.mark.parametrize("quantize_aware", [False, True])
@pytest.mark.parametrize(
    "device, stored, scales", [("phone", "int4", 16), ("cortex-m", "int4", 1), ("ethos-u55-128", "int8", 16)]
)
def test_weights_of_4_bits_are_stored_as_the_device_reads_them(device, stored, scales, quantize_aware, work, tmp_path):
    settings = dataclasses.replace(work.settings, target=target(device))
    maker = Maker(dataclasses.replace(work, settings=settings))
    ways = dict((way[1], way[0]) for way in ways_of("int4", target(device), is_training=True))
    candidate = Candidate({"first": 16}, quantization=ways[quantize_aware], quantize_aware=quantize_aware)
    maker.write(maker.finished(candidate), candidate, tmp_path / "model.tflite")
    (kernel,) = (one for one in ep.read_tflite(tmp_path / "model.tflite").weights if one.shape == (16, 12))
    assert kernel.dtype == stored
    (details,) = (
        one for one in Interpreter(str(tmp_path / "model.tflite")).get_tensor_details() if one["name"] == kernel.name
    )
    assert len(details["quantization_parameters"]["scales"]) == scales
    if device == "cortex-m":
        assert ep.measure.measure_arena(tmp_path / "model.tflite").bytes > 0  # the interpreter itself reads it


def test_what_is_trained_for_its_rounding_is_a_file_of_its_kind(maker):
    _, four = both(maker, Candidate({"first": 16}, quantization="int4", quantize_aware=True))
    _, eight = both(maker, Candidate({"first": 16}, quantization="int8", quantize_aware=True))
    assert four.figures["size"] < eight.figures["size"] and "float_score" not in eight.figures
    restored = maker.untrained(Candidate({"first": 16}, quantization="int8", quantize_aware=True))
    restored.set_weights(eight.weights)
    sparse = Candidate({"first": 16}, sparsity=0.5, quantization="int8", quantize_aware=True, epochs=(1,))
    maker.untrained(sparse).set_weights(maker.made(Job("measured", sparse)).weights)


def test_training_goes_on_from_a_trial(maker):
    first, both_parts = (Candidate({"first": 16}, epochs=parts) for parts in ((1,), (1, 2)))
    begun = maker.made(Job("measured", first))
    ended = maker.made(Job("measured", both_parts, weights=begun.weights, parts_done=1))
    at_once = maker.made(Job("measured", both_parts))
    assert ended.figures["drop_error"] == at_once.figures["drop_error"] >= 0
    assert all(np.allclose(*pair, atol=1e-6) for pair in zip(ended.weights, at_once.weights, strict=True))
    assert not all(np.allclose(*pair, atol=1e-3) for pair in zip(ended.weights, begun.weights, strict=True))
    again = dataclasses.replace(first, quantization="int8")  # another file of the same model
    eight = maker.made(Job("measured", again, weights=begun.weights, parts_done=1))
    assert all(np.array_equal(*pair) for pair in zip(eight.weights, begun.weights, strict=True))
    assert eight.figures["size"] < begun.figures["size"] and eight.figures["float_score"] == begun.figures["score"]


def test_a_trial_that_is_no_number_or_fails_is_one_that_failed(maker):
    broken = Maker(dataclasses.replace(maker.work, train=Samples(data(96, 2)[0] * np.nan, data(96, 2)[1])))
    made = broken.made(Job("measured", Candidate({"first": 8}, epochs=(1,))))
    assert made.state in ("failed", "nan") and made.error
    assert "has no group 'third'" in maker.made(Job("quick", Candidate({"third": 1}))).error


@pytest.mark.parametrize("kind", [TypeError, AttributeError, KeyError, NotImplementedError])
def test_an_error_of_any_type_is_a_trial_that_failed(maker, monkeypatch, kind):
    def raises(*arguments):
        raise kind("of a layer")

    monkeypatch.setattr(maker, "_quick", raises)
    made = maker.made(Job("quick", Candidate({"first": 8})))
    assert made.state == "failed" and made.error.startswith(kind.__name__) and "of a layer" in made.error


def test_a_full_disk_is_no_trial_that_failed(maker, monkeypatch):
    def raises(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(maker, "_quick", raises)
    with pytest.raises(OSError, match="No space left"):
        maker.made(Job("quick", Candidate({"first": 8})))


def test_what_a_file_costs_is_known_where_a_layer_computes_zeros_alone_for_the_first_samples(work, monkeypatch):
    judged, budget = Samples(*data(10, 2)), Budget(max_size="2 KiB")
    maker = Maker(dataclasses.replace(work, train=None, judged=judged, budget=budget))
    narrow = Job("quick", Candidate({"first": 1, "second": 1}, quantization="int8"))
    monkeypatch.setattr(file_costs, "_COST_SAMPLES", (2, 2))
    assert "returns nothing but zeros" in maker.made(narrow).error
    monkeypatch.undo()
    made = maker.made(narrow)
    assert made.state == "ok" and made.figures["size"] == maker.made(narrow).figures["size"] > 0


def test_blocks_are_removed_and_widths_are_planned_within_limits():
    keras = flavors.keras_module("keras")
    keras.utils.set_random_seed(0)
    layers, (x, y) = keras.layers, data(80, 1)
    inputs = keras.Input((12,))
    first = layers.Dense(24, "relu", name="stem")(inputs)
    joined = layers.Add(name="join")([first, layers.Dense(24, "relu", name="branch")(first)])
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(joined), name="residual")
    budget = Budget(max_flash="40 KiB", max_ram="8 KiB")
    settings = TrialSettings(target("cortex-m"), 0, 32, None, 0)
    maker = Maker(Work(model, None, Samples(x, y), "accuracy", budget, settings))
    space = SearchSpace(maker, TrialJournal(None, SEARCH), NO_FILES, None, ways_of("int8", target("cortex-m"), False))
    assert space.blocks == ("join",) and space.directions.plans_within
    without = space.candidate({"target_macs": 1.0, "num_blocks": 1})
    assert without.removed_blocks == ("join",)
    quick, measured = both(maker, without)
    assert quick.figures["macs"] == measured.figures["macs"] == 12 * 24 + 24 * 3
    assert quick.figures["flash"] == measured.figures["flash"]  # known before it is trained
    assert space.candidate({"within": 1.0, "weighed_by": "l2"}).widths == {}  # all of it fits
    size = maker.made(Job("quick", Candidate(quantization="int8"))).figures["size"]
    tight = Maker(dataclasses.replace(maker.work, budget=Budget(max_flash=int(0.93 * size))))
    space = SearchSpace(tight, TrialJournal(None, SEARCH), NO_FILES, None, ways_of("int8", target("cortex-m"), False))
    narrow = space.candidate({"within": 1.0, "weighed_by": "l2"})
    assert narrow.widths and tight.variant().params(narrow.widths) < tight.variant().params({})


@pytest.mark.slow
@pytest.mark.parametrize(
    "device, limits", [("cortex-m", {}), ("cortex-m", {"max_size": 3900}), ("phone", {"max_size": 4500})]
)
def test_the_bundle_computes_what_the_file_does(device, limits, tmp_path):
    from edgeprune.search.trial.file_costs import file_outputs

    model, (x, y) = trained_net(), data(80, 1)
    settings = {"max_accuracy_drop": 1.0, "num_trials": 3, "num_finalists": 1, "verbose": False, **limits}
    result = ep.compress(model, None, (x, y), target=device, output_dir=tmp_path, **settings)
    assert result.bundle == tmp_path / "bundle" and (result.bundle / "SHA256SUMS").exists(), result.notes
    assert not limits or scheme_of(result.candidate.quantization).weight_bits == 4
    one, other = (file_outputs(path, model, x) for path in (result.path, result.bundle / "model.tflite"))
    assert np.array_equal(one["out"], other["out"])


def test_widths_that_round_to_the_originals_are_the_original_which_is_not_trained(maker):
    space = SearchSpace(maker, TrialJournal(None, SEARCH), NO_FILES, None, ways_of(None, target("phone"), True))
    assert space.candidate({"target_macs": 0.97, "way": 0, "epochs": 2}) == Candidate()
    assert space.candidate({"target_macs": 0.5, "way": 0, "epochs": 2}).epochs == (2,)


def test_a_net_that_is_as_narrow_as_a_tile_can_be_cut(work):
    keras = flavors.keras_module("keras")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((12,)), layers.Dense(8, "relu"), layers.Dense(6, "relu"), layers.Dense(3, activation="softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    narrow = Maker(dataclasses.replace(work, model=model))
    space = SearchSpace(narrow, TrialJournal(None, SEARCH), NO_FILES, None, ways_of("int8", target("phone"), False))
    assert space.least_share({}) < 0.6
    assert not space.candidate({"target_macs": 0.6, "way": 0}).is_whole


@pytest.mark.parametrize("device, round_to", [("phone", None), ("phone", 8), ("cortex-m", None), ("ethos-u55-128", 40)])
def test_the_least_share_is_the_least_that_a_candidate_has(work, device, round_to):
    device = target(device)
    maker = Maker(dataclasses.replace(work, settings=dataclasses.replace(work.settings, target=device)))
    space = SearchSpace(maker, TrialJournal(None, SEARCH), NO_FILES, None, ways_of("int8", device, False))
    asked = {} if round_to is None else {"round_to": round_to}  # of which 40 is more than the 32 of the widest layer
    least, variant = space.least_share(asked), maker.variant()
    narrowest = space.candidate({**asked, "target_macs": least})
    assert variant.macs(narrowest.widths) / variant.macs({}) == pytest.approx(least) and least < 0.6
    with pytest.raises(ValueError, match="cannot be reached"):
        space.candidate({**asked, "target_macs": 0.97 * least})
