import importlib
import json

import numpy as np
import pytest
from nets.converted import convert, images, small_cnn

from edgeprune.measure import latency
from edgeprune.measure.latency import benchmark
from edgeprune.measure.machine import this_machine


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    keras = importlib.import_module("keras")
    model = small_cnn(keras)
    folder = tmp_path_factory.mktemp("files")
    embedding = keras.Sequential([keras.Input(batch_shape=(1, 5), dtype="int32"), keras.layers.Embedding(7, 4)])
    return [
        convert(model, folder / "float.tflite"),
        convert(model, folder / "int8.tflite", "int8", images()),
        convert(embedding, folder / "embedding.tflite"),
    ]


@pytest.fixture
def clock(monkeypatch):
    """Replaces time: each file takes 1, 2 or 3 ms, times a drift of the machine that grows each round."""
    state = {"now": 0.0, "calls": []}

    def invoke(runtime):
        state["calls"].append(runtime.path.name)
        milliseconds = {"float.tflite": 1, "int8.tflite": 2, "embedding.tflite": 3}[runtime.path.name]
        state["now"] += milliseconds * 1e-3 * (1 + len(state["calls"]) // 3)

    monkeypatch.setattr(latency.Runtime, "invoke", invoke)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: state["now"])
    return state


def test_every_file_is_run_and_timed(files):
    result = benchmark(files, num_runs=4, warmup_runs=1)
    assert [row.file for row in result.rows] == [str(file) for file in files]
    assert result.samples.shape == (3, 4)
    assert (result.samples > 0).all()
    assert result.rows[0].ratio == 1
    assert result.rows[0].ratio_spread == 0
    for row, times in zip(result.rows, result.samples, strict=True):
        assert row.milliseconds == np.median(times)


def test_one_file_with_threads_and_without_xnnpack(files):
    result = benchmark(files[0], num_runs=2, warmup_runs=0, num_threads=2, use_xnnpack=False)
    assert len(result.rows) == 1
    assert "2 threads, LiteRT" in str(result) and "XNNPACK off" in str(result)
    assert f"on {this_machine()}" in str(result)


def test_files_take_turns_in_an_order_that_changes(files, clock):
    benchmark(files, num_runs=20, warmup_runs=2)
    rounds = [tuple(clock["calls"][start : start + 3]) for start in range(0, len(clock["calls"]), 3)]
    assert len(rounds) == 22
    assert all(len(set(turn)) == 3 for turn in rounds)
    assert len(set(rounds)) > 1


def test_ratio_is_taken_within_each_round(files, clock):
    """The drift doubles the times over the rounds and cancels in the ratios but where it strikes mid-round."""
    result = benchmark(files[:2], num_runs=50, warmup_runs=0)
    by_round = result.samples[1] / result.samples[0]
    assert result.rows[1].ratio == pytest.approx(np.median(by_round))
    assert result.rows[1].ratio == pytest.approx(2, rel=0.1)
    assert result.rows[1].spread > 10 * result.rows[1].ratio_spread


def test_seed_fixes_the_order(files, clock):
    orders = []
    for seed in (1, 1, 2):
        clock["calls"].clear()
        benchmark(files, num_runs=10, warmup_runs=0, seed=seed)
        orders.append(list(clock["calls"]))
    assert orders[0] == orders[1] != orders[2]


def test_time_budget_stops_early(files, clock):
    result = benchmark(files[:1], num_runs=1000, warmup_runs=0, max_seconds=0.02)
    assert 1 <= result.num_runs < 50


def test_table_html_and_json(files):
    result = benchmark(files[:2], num_runs=2, warmup_runs=0)
    lines = str(result).splitlines()
    assert lines[3].startswith("2 runs interleaved")
    assert len(set(map(len, lines[:3]))) == 1  # aligned
    assert result._repr_html_().count("<tr>") == 3
    stored = json.loads(json.dumps(result.to_dict()))
    assert stored["machine"]["cpu"] == this_machine().cpu
    assert [row["ratio"] for row in stored["files"]] == [row.ratio for row in result.rows]


def test_html_is_escaped(files, tmp_path):
    path = tmp_path / "<b>.tflite"
    path.write_bytes(files[0].read_bytes())
    assert "<b>" not in benchmark(path, num_runs=1, warmup_runs=0)._repr_html_()


def test_bad_arguments_are_refused(files):
    with pytest.raises(ValueError, match="one or more .tflite files"):
        benchmark([])
    for argument, value in (
        ("num_runs", 0),
        ("num_runs", 2.5),
        ("warmup_runs", -1),
        ("num_threads", 0),
        ("num_threads", 1.0),
        ("max_seconds", -1),
        ("max_seconds", 0),
        ("max_seconds", float("nan")),
    ):
        with pytest.raises(ValueError, match=f"{argument} must be .* got {value}"):
            benchmark(files, **{argument: value})


def test_bad_files_are_named(files, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.tflite"):
        benchmark([files[0], tmp_path / "nothing.tflite"])
    (tmp_path / "junk.tflite").write_bytes(b"junk" * 10)
    with pytest.raises(ValueError, match="junk.tflite does not load"):
        benchmark([files[0], tmp_path / "junk.tflite"])


def test_file_that_loads_but_does_not_run_is_named(tmp_path):
    """A gather with an index out of range fails only when it runs."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1,), tf.float32)])
    def gather(x):
        return tf.gather(tf.constant([1.0, 2.0]), tf.cast(x, tf.int32) + 9)

    path = tmp_path / "gather.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([gather.get_concrete_function()]).convert())
    with pytest.raises(ValueError, match="gather.tflite loads but does not run"):
        benchmark(path, num_runs=1)


def test_a_file_that_reads_words_is_timed(tmp_path):
    keras = importlib.import_module("keras")
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Sequential([keras.Input(batch_shape=(1, 1), dtype="string"), lookup, keras.layers.Embedding(3, 2)])
    assert benchmark([convert(model, tmp_path / "words.tflite")], num_runs=2, warmup_runs=0).rows[0].milliseconds > 0
