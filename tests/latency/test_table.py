"""Times on disk and from devices. Nothing here looks at how long anything takes."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from edgeprune.latency import table as module
from edgeprune.latency.table import LatencyTable, cache_folder, read_latency_table, table_of_this_machine
from edgeprune.latency.timing import Stopwatch

TIMES = {"CONV_2D 1x8x8x3:float32 8x3x3x3:float32* -> 1x8x8x8:float32": 0.25, 'ADD "a", b': 1.5e-3}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEPRUNE_CACHE", str(tmp_path / "cache"))


def one_operator():
    """The smallest file of one operator."""
    import keras

    from edgeprune.conversion.plain import converted

    inputs = keras.Input((4,))
    return converted(keras.Model(inputs, keras.layers.Dense(3)(inputs)), None)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_table_comes_back_from_its_file(tmp_path, suffix):
    path = LatencyTable(TIMES, "a phone").save(tmp_path / f"phone{suffix}")
    again = read_latency_table(path)
    assert again.times == TIMES
    assert again.device == ("a phone" if suffix == ".json" else "phone") and again.path is None
    with pytest.raises(FileExistsError):
        LatencyTable(TIMES, "a phone").save(path)
    LatencyTable({"x": 1.0}, "a phone").save(path, overwrite=True)
    assert read_latency_table(path).times == {"x": 1.0}


@pytest.mark.parametrize(
    "text, message",
    [
        ("name,ms\nx,1\n", r"must have the columns operator and milliseconds; it has \['name', 'ms'\]"),
        ("operator,milliseconds\nx,fast\n", "line 2: milliseconds must be a number of 0 or more; got 'fast'"),
        ("operator,milliseconds\nx,-1\n", "line 2: milliseconds must be a number of 0 or more; got '-1'"),
        ("operator,milliseconds\nx,inf\n", "line 2: milliseconds must be a number"),
        ("operator,milliseconds\nx\n", "line 2: milliseconds must be a number"),
        ("operator,milliseconds\n", "it has no times"),
        ("", r"must have the columns operator and milliseconds; it has \[\]"),
    ],
)
def test_a_broken_csv_is_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_latency_table(tmp_path / "t.csv")


def test_other_broken_tables_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="No table of latencies"):
        read_latency_table(tmp_path / "none.csv")
    (tmp_path / "t.txt").write_text("x")
    with pytest.raises(ValueError, match=r"is a \.csv or a \.json file"):
        read_latency_table(tmp_path / "t.txt")
    with pytest.raises(ValueError, match=r"is a \.csv or a \.json file"):
        LatencyTable(TIMES, "a phone").save(tmp_path / "t.txt")
    for content in ("[1]", "{", '{"format": 2, "times": {}}', '{"format": 1, "times": {"x": "y"}}'):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(ValueError, match="is no table of latencies"):
            read_latency_table(tmp_path / "t.json")


def test_a_device_lacks_what_was_not_measured():
    with pytest.raises(ValueError, match=r"The table of phone lacks 1 of 2 operators .* 'y': write files"):
        LatencyTable({"x": 1.0}, "phone").measure({"x": bytes, "y": bytes})


def test_what_was_measured_is_kept_and_not_measured_again():
    content, asked = one_operator(), []

    def made():
        asked.append(1)
        return content

    table = table_of_this_machine()
    table.measure({"dense": made})
    assert table.times["dense"] >= 0 and len(asked) == 1
    again = table_of_this_machine()
    again.measure({"dense": made})
    assert len(asked) == 1 and again.times == table.times
    assert table_of_this_machine(2).times == {}  # other threads, other times
    assert table.path.parent == cache_folder() / "latency"


def test_two_processes_add_to_one_cache():
    first, second = table_of_this_machine(), table_of_this_machine()
    content = one_operator()
    first.measure({"a": lambda: content})
    second.measure({"b": lambda: content})
    assert set(table_of_this_machine().times) == {"a", "b"}


def test_a_damaged_cache_is_measured_anew():
    table = table_of_this_machine()
    table.path.parent.mkdir(parents=True)
    table.path.write_text('{"format": 1, "tim')
    assert table_of_this_machine().times == {}
    content = one_operator()
    table_of_this_machine().measure({"a": lambda: content})
    assert set(json.loads(table.path.read_text())["times"]) == {"a"}


def _write_for_ever(folder):
    os.environ["EDGEPRUNE_CACHE"] = folder
    number = 0
    while True:
        table = table_of_this_machine()
        table._new.update({f"op {number + n}": 1.0 for n in range(50)})
        table._keep()
        number += 1


def test_the_cache_survives_a_kill(tmp_path):
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        process = context.Process(target=_write_for_ever, args=(str(tmp_path / "cache"),), daemon=True)
        process.start()
        path = table_of_this_machine().path
        end = time.monotonic() + 20
        while not path.exists() and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert read_latency_table(path).times
        assert [p.name for p in path.parent.iterdir() if p.suffix == ".json"] == [path.name]


def test_files_that_do_not_run_take_no_part(monkeypatch):
    good = one_operator()
    with Stopwatch() as stopwatch:
        times = list(stopwatch.times([good, b"no file at all", good]))
        assert times[0] >= 0 and times[2] >= 0 and times[1] != times[1]
        with pytest.raises(ValueError, match="does not run in the LiteRT interpreter of this machine"):
            stopwatch.rounds([good, b"no file"], 2)
        assert stopwatch.rounds([good, good], 3).shape == (2, 3)


def test_a_file_that_ends_the_process_ends_it_alone(monkeypatch):
    good, fatal = one_operator(), b"fatal"
    monkeypatch.setattr(Stopwatch, "_answered", _ends_at(fatal, Stopwatch._answered))
    with Stopwatch() as stopwatch:
        times = list(stopwatch.times([good, good, fatal, good]))
    assert [time != time for time in times] == [False, False, True, False]


def _ends_at(fatal, answered):
    def answer(self, batch, rounds):
        if fatal in batch:
            self._started().kill()
            self._started().wait()
        return answered(self, batch, rounds)

    return answer


@pytest.mark.parametrize(
    "platform, variable, expected",
    [("linux", "XDG_CACHE_HOME", "edgeprune"), ("win32", "LOCALAPPDATA", "edgeprune")],
)
def test_where_the_cache_lies(tmp_path, monkeypatch, platform, variable, expected):
    monkeypatch.delenv("EDGEPRUNE_CACHE")
    monkeypatch.setattr(module.sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path / expected
