"""From a budget to a file, end to end: what is written, what is measured, and what goes on after a stop."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import tensorflow as tf
from search.small_net import data, net, trained_net

import edgeprune as ep
from edgeprune import flavor as flavors
from edgeprune.search import read_search
from edgeprune.search.budget import Budget, Excess
from edgeprune.search.strategies import search_space
from edgeprune.search.strategies.finalists import Outcome
from edgeprune.search.strategies.reach import within_target
from edgeprune.search.trial import maker
from edgeprune.search.trial.job import Job, Samples, TrialSettings, Work
from edgeprune.search.trial.maker import Maker
from edgeprune.search.trial.record import Candidate, Trial
from edgeprune.search.verdict import ending
from edgeprune.search.verdict.bootstrap import Interval
from edgeprune.search.verdict.gate import Verdict
from edgeprune.targets import target


@pytest.fixture(scope="module")
def trained():
    """A net of a Keras, trained once."""
    return functools.cache(trained_net)


def constant(y_true, y_pred):
    return np.full(len(y_true), 0.5)


SETTINGS = {"num_trials": 3, "num_finalists": 1, "bundle": False, "verbose": False}


@pytest.mark.above_flavor
def test_a_budget_becomes_a_file(flavor, trained, tmp_path):
    model, (x, y) = trained(flavor), data(120, 1)
    before = model.get_weights()
    train = data(128, 2) if flavor == flavors.TF_KERAS else None
    settings = {**SETTINGS, "max_accuracy_drop": "20%", "target": "cortex-m", "epochs": 2}
    result = ep.compress(model, train, (x, y), output_dir=tmp_path / "out", **settings)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert result.path == tmp_path / "out" / "model.tflite" and result.verdict.num_samples == 60
    assert result.accepted == (result.verdict.lost.value <= 0.2) and result.accepted
    assert result.verdict.measured["size"] == result.path.stat().st_size
    assert result.verdict.measured["flash"] > result.path.stat().st_size
    macs = ep.count_macs(model).total
    best = next(one for one in result.trials if one.stage == "measured" and not one.candidate.is_whole)
    assert ep.count_macs(result.model).total == best.macs <= best.settings["target_macs"] * macs
    assert ep.count_parameters(result.model).total == best.params
    (x_held, y_held, _) = trials_held_out(x, y)
    own = ep.score(result.path, x_held, y_held, model=model)["accuracy"]
    assert own == pytest.approx(result.verdict.after) and "accepted" in str(result)
    journal = read_search(tmp_path / "out" / "trials.jsonl")
    assert journal.trials == result.trials and journal.ending.winner == best.number and journal.header.macs == macs
    assert journal.trials[journal.ending.winner].candidate.widths and best.quick_score is not None
    assert json.loads(json.dumps(result.to_dict()))["verdict"]["metric"] == "accuracy"
    with pytest.raises(FileExistsError, match=r"has \d+ trials: pass resume=True"):
        ep.compress(model, train, (x, y), output_dir=tmp_path / "out", **settings)
    with pytest.raises(ValueError, match="another search: max_accuracy_drop 0.2, now 0.3"):
        ep.compress(model, train, (x, y), output_dir=tmp_path / "out", **{**settings, "max_accuracy_drop": 0.3})
    with pytest.raises(ValueError, match="another search: another data. Pass"):
        ep.compress(model, train, (x + 1, y), output_dir=tmp_path / "out", resume=True, **settings)


@pytest.mark.above_flavor
@pytest.mark.parametrize("search", ["guided", "tpe"])
def test_within_bytes_that_fewer_bits_come_to_nothing_is_cut(flavor, search, trained, tmp_path):
    model, (x, y) = trained(flavor), data(120, 1)
    sizes = []
    for name in ("int4", "int8"):
        made = ep.export_tflite(model, tmp_path / f"{name}.tflite", name, x, calibration="min-max", verify=False)
        sizes.append(made.bytes)
    limit = sum(sizes) // 2
    settings = {**SETTINGS, "max_accuracy_drop": 0.5, "max_size": limit, "search": search}
    result = ep.compress(model, None, (x, y), output_dir=tmp_path / "out", **settings)
    assert result.accepted and result.candidate.is_whole and sizes[0] <= result.verdict.measured["size"] <= limit
    assert [trial.stage for trial in result.trials] == ["measured"] * len(result.trials)
    mixed = result.trials[-1]
    assert mixed.settings["more_bytes"] > 0 and set(mixed.candidate.quantization.layer_bits.values()) == {8}
    assert "int4 with other bits in 1 layer" in str(result)
    again = ep.apply_recipe(ep.Recipe.load(result.recipe), model, (x, y), output=tmp_path / "again.tflite")
    assert again.size == result.path.stat().st_size


def trials_held_out(x, y):
    from edgeprune.search.verdict.gate import hold_out

    return hold_out(x, y, seed=0)[1]


@pytest.mark.slow  # test_runner.py has a stop after any trial
def test_a_search_that_was_stopped_goes_on(trained, tmp_path, monkeypatch):
    model, validation = trained("keras"), data(80, 1)
    settings = {**SETTINGS, "max_accuracy_drop": 0.1, "quantization": None, "target": "phone"}
    calls, cut = [], search_space.plan_graph

    def stopped(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return cut(*arguments, **named)

    monkeypatch.setattr(search_space, "plan_graph", stopped)
    with pytest.raises(KeyboardInterrupt):
        ep.compress(model, None, validation, output_dir=tmp_path / "a", **settings)
    monkeypatch.setattr(search_space, "plan_graph", cut)
    journal = tmp_path / "a" / "trials.jsonl"
    text = journal.read_bytes()
    journal.write_bytes(text[:-5])  # and its last trial is lost
    resumed = ep.compress(model, None, validation, output_dir=tmp_path / "a", resume=True, **settings)
    whole = ep.compress(model, None, validation, output_dir=tmp_path / "b", **settings)
    assert [one.figures for one in resumed.trials] == [one.figures for one in whole.trials]
    assert resumed.path.read_bytes() == whole.path.read_bytes() and resumed.verdict == whole.verdict


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(trained, tmp_path, monkeypatch):
    def failing(*arguments, **named):
        raise MemoryError("no memory is left")

    monkeypatch.setattr(search_space, "plan_graph", failing)
    result = ep.compress(
        trained("keras"),
        None,
        data(60, 1),
        max_size="4 KiB",
        output_dir=tmp_path / "out",
        quantization=None,
        **SETTINGS,
    )
    assert not result.accepted and result.verdict.exceeded[0].limit == "max_size"
    assert [one.error for one in result.trials if one.error][0] == "MemoryError: no memory is left"
    assert "no model that was tried holds every limit" in result.notes[0] and "no memory is left" in str(result)


def test_what_holds_already_is_said_and_labels_may_be_missing(trained, tmp_path):
    x, _ = data(60, 1)
    limits = {"max_size": "1 MB", "max_accuracy_drop": 0.2}
    result = ep.compress(trained("keras"), None, x, output_dir=tmp_path, quantization=None, **limits, **SETTINGS)
    assert result.accepted and result.verdict.metric == "agreement" and len(result.trials) == 1
    assert result.notes[0] == "nothing had to be cut: the file is the original"
    assert np.isnan(result.rank_correlation)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({}, "Nothing is limited"),
        ({"max_ram": "64 KB", "target": "phone"}, "for 'phone' pass max_size"),
        ({"max_size": "20 ms"}, "must be a number of bytes"),
        ({"max_size": 100, "num_trials": 0}, "num_trials must be a whole"),
        ({"max_size": 100, "target": "cortex"}, "no target 'cortex'"),
        ({"max_size": 100, "metric": lambda y_true, y_pred: 0.0}, "Which direction of"),
        ({"max_size": 100, "metric": ep.Metric(constant, higher_is_better=True)}, "is 0.5 whatever the model computes"),
        ({"max_flash": "1 MiB", "target": "stm32f446re"}, "more than the 512 KiB of flash that 'stm32f446re' has"),
        ({"max_size": 100, "quantization": "int8", "target": "phone-gpu"}, "'phone-gpu' does not run models in int8"),
        ({"max_size": 100, "quantization": []}, "quantization is empty"),
        ({"max_size": 100, "search": "random"}, "search must be 'guided', 'tpe' or 'nsga2'"),
        ({"max_size": 100, "log": ["mail"]}, "log must name some of 'csv', 'tensorboard'"),
        ({"max_size": 100, "time_budget": 0}, "time_budget must be above 0"),
    ],
)
def test_bad_input_is_refused(settings, words, trained, tmp_path):
    with pytest.raises(ValueError, match=words):
        ep.compress(trained("keras"), None, data(40, 1), output_dir=tmp_path, **settings)
    assert not (tmp_path / "trials.jsonl").exists()


def with_nan(values):
    values = np.array(values, "f4")
    values.flat[-1] = np.nan
    return values


def raising(y_true, y_pred):
    raise KeyError("lost")


GOOD = data(40, 1)


@pytest.mark.parametrize(
    "train, validation, settings, words",
    [
        (None, np.zeros((40, 7), "f4"), {}, r"validation: .* of shape \(12,\), got an array of shape \(40, 7\)"),
        (None, GOOD[0], {"metric": "accuracy"}, "label"),
        (None, data(1, 1), {}, "1 sample is too few"),
        (None, (GOOD[0][:0], GOOD[1][:0]), {}, "validation: there are no samples"),
        (None, (GOOD[0], GOOD[1][:9]), {}, r"validation: .* different numbers of samples: \[9, 40\]"),
        (None, (with_nan(GOOD[0]), GOOD[1]), {}, "validation: .* hold NaN or infinity"),
        (None, (GOOD[0], with_nan(GOOD[1])), {}, "validation: 1 of the 40 labels are NaN"),
        (None, (*GOOD, with_nan(np.ones(40))), {}, "validation: 1 of the 40 sample weights are NaN"),
        (None, GOOD, {"test": GOOD[0]}, "test: there are no labels, and validation has them"),
        (None, GOOD[0], {"test": GOOD}, "validation: there are no labels, and test has them"),
        (None, GOOD, {"test": (GOOD[0][:, :7], GOOD[1])}, r"test: .* of shape \(12,\)"),
        (None, GOOD, {"test": (GOOD[0][:0], GOOD[1][:0])}, "test: there are no samples"),
        (None, GOOD, {"metric": ep.Metric(raising, higher_is_better=True)}, "raising raised KeyError: 'lost'"),
        ((GOOD[0][:, :7], GOOD[1]), GOOD, {}, r"train: .* of shape \(12,\), got an array of shape \(40, 7\)"),
        ((GOOD[0], GOOD[1][:9]), GOOD, {}, r"train: .* different numbers of samples: \[9, 40\]"),
        ((GOOD[0], GOOD[1] + 5), GOOD, {}, "train: The labels must be class numbers from 0 to 2; got"),
        ((with_nan(GOOD[0]), GOOD[1]), GOOD, {}, "train: .* hold NaN or infinity"),
        ((GOOD[0], with_nan(GOOD[1])), GOOD, {}, "train: 1 of the 40 labels are NaN"),
        ([], GOOD, {}, "train: The data has no batches"),
        ((GOOD[0], None, np.ones(40)), GOOD, {}, "train: without labels no sample is weighed"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    train, validation, settings, words, trained, tmp_path
):
    with pytest.raises(ValueError, match=words):
        ep.compress(trained("keras"), train, validation, max_size=100, output_dir=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_metric_that_raises_at_the_end_leaves_no_file_that_was_not_checked(trained, tmp_path):
    def failing_in_the_end(y_true, y_pred):
        if (tmp_path / "out" / "trials" / "0.npz").exists():
            raise KeyError("lost")
        return y_pred.argmax(axis=-1) == y_true

    metric = ep.Metric(failing_in_the_end, higher_is_better=True)
    with pytest.raises(ValueError, match="failing_in_the_end raised KeyError: 'lost'"):
        ep.compress(
            trained("keras"), None, GOOD, metric=metric, max_size="1 MB", output_dir=tmp_path / "out", **SETTINGS
        )
    assert read_search(tmp_path / "out" / "trials.jsonl").trials and not (tmp_path / "out" / "model.tflite").exists()


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_data_in_no_known_form_are_named(trained, name, tmp_path):
    given = {"train": GOOD, "validation": GOOD, "test": GOOD, name: "data.npz"}
    with pytest.raises(TypeError, match=f"{name}: data must be arrays"):
        ep.compress(trained("keras"), **given, max_size=100, output_dir=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_an_input_of_any_length_is_to_be_fixed_first(flavor, tmp_path):
    keras = flavors.keras_module(flavor)
    series = keras.Input((None, 3), name="series")
    model = keras.Model(series, keras.layers.Dense(2)(keras.layers.LSTM(8)(series)))
    x = np.ones((40, 7, 3), "f4")
    with pytest.raises(
        ValueError, match=r"Input 'series' .* has no fixed shape: \(None, 3\). Fix it before converting"
    ):
        ep.compress(model, None, x, max_size=100, output_dir=tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_files_that_no_search_wrote_are_not_replaced(trained, tmp_path):
    (tmp_path / "model.tflite").write_text("precious")
    with pytest.raises(FileExistsError, match=r"model.tflite is there already, without the trials of its search"):
        ep.compress(trained("keras"), None, GOOD, max_size=100, output_dir=tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]


def test_a_board_that_cannot_hold_the_smallest_is_named(trained, tmp_path):
    board = dataclasses.replace(target("cortex-m"), name="tiny", flash_bytes=2000, ram_bytes=500)
    settings = {**SETTINGS, "max_accuracy_drop": 1.0, "num_trials": 20}
    result = ep.compress(trained("keras"), None, data(60, 1), output_dir=tmp_path, target=board, **settings)
    assert not result.accepted and {one.limit for one in result.verdict.exceeded} == {"max_flash", "max_ram"}
    assert "max_flash of 1.953 KiB: " in str(result) and "over" in str(result)
    assert len(result.trials) <= 2, "nothing else need be tried"
    assert result.notes[-1].startswith("even the narrowest model, of one channel in each group, exceeds max_flash")


def test_a_narrowest_model_that_computes_zeros_does_not_end_the_search(tmp_path):
    model = trained_net()
    kernel, bias = model.get_layer("first").get_weights()
    kernel[:, 0], bias[0] = 50.0, -1e4  # the largest norm, and nothing but zeros: the last unit that is kept
    model.get_layer("first").set_weights([kernel, bias])
    x, y = data(60, 1)
    whole = ep.export_tflite(model, tmp_path / "whole.tflite", "int8", x, verify=False)
    settings = {**SETTINGS, "num_trials": 6, "max_size": round(0.8 * whole.bytes)}
    result = ep.compress(model, None, (x, y), output_dir=tmp_path / "out", **settings)
    assert result.accepted and result.verdict.measured["size"] <= 0.8 * whole.bytes


def test_memories_that_the_original_fits_into_are_no_limits_of_the_search(trained):
    board = dataclasses.replace(target("cortex-m"), name="small", flash_bytes=2**20, ram_bytes=1)
    (x, _), model, budget = data(8, 1), trained("keras"), Budget(max_accuracy_drop=0.1)
    assert within_target(budget, model, board, "int8", x).limits == {
        "max_accuracy_drop": 0.1,
        "max_flash": 2**20,
        "max_ram": 1,
    }
    assert within_target(budget, model, dataclasses.replace(board, ram_bytes=2**20), "int8", x) == budget
    assert within_target(budget, model, target("phone"), "int8", x) == budget


def test_a_device_without_a_kernel_is_refused_before_the_search(tmp_path):
    keras = flavors.keras_module("keras")
    layers = [keras.layers.Dense(8, "gelu", name="bend"), keras.layers.Dense(2, name="end")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    x = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match="does not run on cortex-m, which has no kernel for: GELU in layer 'bend'"):
        ep.compress(model, None, (x, x[:, :2]), target="cortex-m", max_accuracy_drop=1.0, output_dir=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("train", [None, Samples(*data(8, 2))])
def test_what_to_do_next_is_said_where_the_held_out_samples_decide_otherwise(train):
    work = Work(None, train, None, None, Budget(max_accuracy_drop=0.01), TrialSettings(target("phone"), 2, 32, None, 0))
    exceeded = (Excess("max_accuracy_drop", 0.01, 0.0333), Excess("max_latency_ms", 2.0, 2.5))
    verdict = Verdict(False, exceeded, "accuracy", 0.9, 0.8667, Interval(0.0333, 0.0, 0.06, 0.95), {}, 200, 0.01)
    best = Trial(0, "measured", {}, Candidate({"first": 4}), accuracy_drop=0.005)
    held, what, fair, time = ending._notes(work, Outcome(best, True), best.candidate, verdict, [best])
    assert held == "the limits held on the samples of the search, and do not on those that were held out"
    learn = "more epochs or samples to train on" if train else "samples to train on"
    assert what.startswith("what helps, in another folder: more validation data") and f"; {learn}; " in what
    assert what.endswith("or a limit above the 0.0333 that were lost") and fair.endswith("pass new ones as test=")
    assert time.startswith("the time held in the search, and does not now")
    # Where nothing held, and nothing explains it, there is more to be looked at; the nearest may hold after all.
    none, more = ending._notes(work, Outcome(best, False), best.candidate, verdict, [])
    assert none.endswith("this is the nearest") and more.startswith("raise the limit, or look further")
    accepted = dataclasses.replace(verdict, accepted=True, exceeded=(), allowed_drop=None)
    (lucky,) = ending._notes(work, Outcome(best, False), best.candidate, accepted, [])
    assert lucky.endswith("the nearest does on the others")


def test_limits_that_contradict_each_other_are_named():
    budget = Budget(max_accuracy_drop=0.01, max_size="3 KiB")
    measured = [
        Trial(0, "measured", {}, Candidate(), accuracy_drop=0.0, size=6000),
        Trial(1, "measured", {}, Candidate({"first": 4}), accuracy_drop=0.2, size=2900),
        Trial(2, "quick", {}, Candidate({"first": 4}), accuracy_drop=0.0, size=2900),
    ]
    said = ending._contradiction(budget, measured)
    assert "models that hold those on costs lose 0.2 or more" in said and "max_size of 3 KiB: 5.859 KiB" in said
    assert not ending._contradiction(budget, measured[:1]) and not ending._contradiction(budget, measured[1:])


def test_a_model_that_cannot_be_cut_is_refused(tmp_path):
    keras = flavors.keras_module("keras")
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(3, activation="softmax")], name="flat")
    with pytest.raises(ValueError, match=r"No channel of model 'flat' can be removed \(dense.*: output of the model"):
        ep.compress(model, None, data(40, 1), max_size=100, output_dir=tmp_path)


def test_strategies_that_nothing_is_trained_under_are_refused(two_replicas, tmp_path):
    keras = flavors.keras_module("keras")
    arguments = {"max_size": 100, "output_dir": tmp_path / "out"}
    with two_replicas.scope():
        model = net(keras)
        with pytest.raises(ValueError, match=r"'net' is passed inside the scope .* end the with block first"):
            ep.compress(model, None, GOOD, **arguments)
    with pytest.raises(ValueError, match="pass engine='local'"):
        ep.compress(model, None, GOOD, engine="ray", **arguments)
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = net(keras)
    with pytest.raises(ValueError, match=r"under a OneDeviceStrategy.* pass keras.models.clone_model\(model\)"):
        ep.compress(model, None, GOOD, **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.above_flavor
def test_models_are_trained_under_the_strategy_of_the_original(flavor, two_replicas, tmp_path, monkeypatch):
    """Zeros and training for the rounding too; two replicas learn what one process does but for rounding."""
    alone, students = trained_net(flavor), []
    with two_replicas.scope():
        mirrored = net(flavors.keras_module(flavor))
    mirrored.set_weights(alone.get_weights())

    def distill(student, teacher, *arguments, **named):
        students.append((student.distribute_strategy, teacher.distribute_strategy))
        return ep.distill(student, teacher, *arguments, **named)

    monkeypatch.setattr(maker, "distill", distill)
    found = []
    for model, folder in ((alone, "alone"), (mirrored, "mirrored")):
        limits = {"max_accuracy_drop": 0.3, "quantization": None, "epochs": 1}
        found.append(
            ep.compress(model, data(96, 2), data(80, 1), output_dir=tmp_path / folder, **{**SETTINGS, **limits})
        )
    one, other = found
    assert students and students == [(tf.distribute.get_strategy(),) * 2] * (len(students) // 2) + [
        (two_replicas, two_replicas)
    ] * (len(students) // 2)
    assert (
        one.candidate == other.candidate
        and one.candidate.widths
        and other.model.distribute_strategy is not two_replicas
    )
    for first, second in zip(one.model.get_weights(), other.model.get_weights(), strict=True):
        assert np.allclose(first, second, atol=1e-4)
    work = Work(
        alone,
        Samples(*data(96, 2)),
        Samples(*data(80, 1)),
        None,
        Budget(max_accuracy_drop=0.3),
        TrialSettings(target("phone"), 1, 32, None, 0),
    )
    sparse = Candidate({"first": 16}, sparsity=0.5, epochs=(1,))
    rounded = dataclasses.replace(sparse, quantization="int8", quantize_aware=True)
    makers = [Maker(work, strategy) for strategy in (None, two_replicas)]
    # Those of tf_keras that are to be trained for their rounding are trials that failed.
    for candidate in (sparse, rounded) if flavor == flavors.KERAS_3 else (sparse,):
        one, other = (maker.made(Job("measured", candidate)) for maker in makers)
        assert one.state == other.state == "ok" and one.figures["size"] == other.figures["size"]
        for first, second in zip(one.weights, other.weights, strict=True):
            assert ((first == 0) == (second == 0)).all()
            # In training for the rounding, ranges are those of the replicas' parts.
            assert candidate is rounded or np.allclose(first, second, atol=1e-4)
        makers[0].untrained(candidate).set_weights(one.weights)


def test_the_verdict_is_on_the_test_data_where_there_are_any(trained, tmp_path):
    model, (x, y) = trained("keras"), data(24, 5)
    wrong = (y + 1) % 3
    judged = data(80, 1)
    settings = {"max_accuracy_drop": 0.3, "num_trials": 3, "num_finalists": 1, "bundle": False, "verbose": False}
    result = ep.compress(model, None, judged, (x, wrong), output_dir=tmp_path / "a", **settings)
    accuracies = model.evaluate(*judged, verbose=0)[1], model.evaluate(x, wrong, verbose=0)[1]
    header = ep.search.read_search(tmp_path / "a").header
    assert header.num_samples == 80 and header.baseline == pytest.approx(accuracies[0])
    assert result.verdict.num_samples == 24 and result.verdict.before == pytest.approx(accuracies[1])
    assert "the verdict is on 24 samples alone" in str(result)
    with pytest.raises(ValueError, match="another data"):
        ep.compress(model, None, judged, (x, y), output_dir=tmp_path / "a", resume=True, **settings)
