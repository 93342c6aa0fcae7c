"""`edgeprune sensitivity`: the same curves as the library's, on stdout, in files, and after an interruption."""

import json

import numpy as np
import pytest
from cli.invoked import refused, run, run_ok

import edgeprune as ep
from edgeprune.search.journal import measurements as journal


@pytest.mark.parametrize("name", ["keras.keras", "tf_keras.h5"])
def test_the_curves_are_those_of_the_library(folder, tmp_path, name):
    done = run_ok("sensitivity", folder / name, "--data", folder / "split.npz", "--level", 0.5, "--json")
    content = json.loads(done.stdout)
    model, data = ep.load_model(folder / name), np.load(folder / "split.npz")
    expected = ep.sensitivity(model, (data["x_test"], data["y_test"]), levels=[0.5])
    assert content.pop("collapse") == expected.collapse()
    assert content == json.loads(json.dumps(expected.to_dict()))
    assert content["curves"][0]["removed"] == [8]


def test_files_are_written_and_the_table_shown(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    files = tmp_path / "curves.json", tmp_path / "curves.png"
    arguments = ("--data", folder / "unlabelled.npz", "--reconstruct", folder / "data.npz", "--num-samples", 50)
    done = run_ok("sensitivity", folder / "keras.keras", *arguments, "-o", files[0], "--plot", files[1])
    assert "solved again" in done.stdout and "on 50 samples" in done.stdout and f"wrote {files[1]}" in done.stdout
    curves = ep.Sensitivity.load(files[0])
    assert (curves.metric, curves.reconstructed, curves.num_samples) == ("distance", True, 50)
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert "--overwrite" in refused("sensitivity", folder / "keras.keras", *arguments, "-o", files[0])


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    arguments = ("sensitivity", folder / "keras.keras", "--data", folder / "data.npz", "-o", tmp_path / "c.json")
    put = journal.Journal.put

    def once(self, *measured):
        put(self, *measured)
        raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "put", once)
    assert run(*arguments).exit_code != 0
    (unfinished,) = tmp_path.iterdir()
    kept = unfinished.read_text()
    measured = []
    monkeypatch.setattr(journal.Journal, "put", lambda self, *one: measured.append(one) or put(self, *one))
    run_ok(*arguments)
    assert len(kept.splitlines()) == 2 and len(measured) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_channels_weighs_groups_by_the_curves_of_a_file(folder, tmp_path):
    model, path = ep.load_model(folder / "keras.keras"), tmp_path / "curves.json"
    curves = ep.sensitivity(model, np.load(folder / "unlabelled.npz")["x"])
    curves.save(path)
    arguments = ("channels", folder / "keras.keras", "--target-params", 0.6, "--curves", path)
    plan = ep.ChannelPlan.from_json(model, run_ok(*arguments, "--json").stdout)
    expected = ep.plan_channels(model, target_params=0.6, scope=curves)
    assert np.array_equal(plan.kept_mask, expected.kept_mask)
    assert "leave --scope out" in refused(*arguments, "--scope", "local")
