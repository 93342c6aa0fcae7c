"""A journal cut at every byte, damaged, locked, of another search."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.schemes import Scheme
from edgeprune.search.curves.curves import Sensitivity
from edgeprune.search.journal.journal_file import JournalFile
from edgeprune.search.journal.measurements import Journal
from edgeprune.search.journal.search_record import SearchEnding, SearchHeader, read_search
from edgeprune.search.journal.trial_journal import TrialJournal
from edgeprune.search.trial.record import Candidate, Trial

RECORDS = [{"a": 1}, {"text": "zwölf\n", "list": [1.5, None, True]}, {"b": {"c": [1e-300, 2]}}]
SEARCH = SearchHeader(
    model="net",
    model_fingerprint="m1",
    data_fingerprint="d1",
    target="phone",
    limits={"max_size": 1000.0},
    settings={"epochs": 3, "quantizations": ("int8", None)},
    seed=0,
    metric="accuracy",
    higher_is_better=True,
    baseline=0.9,
    macs=24,
    params=12,
    num_samples=60,
    environment={"python": "3.11"},
)


def write(path, records=RECORDS):
    with JournalFile(path, "tests") as journal:
        for record in records:
            journal.append(record)
    return path.read_bytes()


def read(path):
    with JournalFile(path, "tests") as journal:
        return journal.records


def test_a_cut_at_every_byte_loses_at_most_the_last_record(tmp_path):
    path = tmp_path / "journal.jsonl"
    text = write(path)
    ends = [position + 1 for position, byte in enumerate(text) if byte == 10]
    for cut in range(len(text) + 1):
        path.write_bytes(text[:cut])
        whole = max(0, sum(end <= cut for end in ends) - 1)  # the first line is none of the records
        assert read(path) == RECORDS[:whole]
        write(path, [{"after": cut}])
        assert read(path) == [*RECORDS[:whole], {"after": cut}]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(records=st.lists(st.dictionaries(st.text(), values, max_size=3), max_size=4), data=st.data())
def test_what_is_written_is_read(tmp_path_factory, records, data):
    path = tmp_path_factory.mktemp("journal") / "new" / "journal.jsonl"
    text = write(path, records)
    assert read(path) == records
    position = data.draw(st.integers(0, len(text) - 2))
    changed = bytes([text[position] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(text[:position] + changed + text[position + 1 :])
    try:
        found = read(path)  # a new end of a line, or another spelling of the same value
    except (ValueError, UnicodeDecodeError):
        return
    assert all(record in records for record in found)


def test_a_damaged_line_and_another_file_are_named(tmp_path):
    path = tmp_path / "journal.jsonl"
    text = write(path)
    path.write_bytes(text.replace(b'"a":1', b'"a":2'))
    with pytest.raises(ValueError, match="Line 2 of .* is damaged"):
        read(path)
    path.write_text("my notes\n")
    with pytest.raises(ValueError, match="is no journal of tests, it is another file: choose another name"):
        read(path)
    assert path.read_text() == "my notes\n"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="is no journal of trials, it is one of tests: choose another name"):
        TrialJournal(path, SEARCH)
    with JournalFile(path, "tests") as journal, pytest.raises(ValueError, match="JSON compliant"):
        journal.append({"a": float("nan")})
    assert read(path) == RECORDS


def test_two_processes_do_not_write_one_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys\nfrom edgeprune.search.journal.journal_file import JournalFile\n"
        "JournalFile(sys.argv[1], 'tests'); print('open', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "open\n"
        with pytest.raises(ValueError, match="is being written by another run"):
            read(path)
    finally:
        process.kill()
        process.communicate()
    assert read(path) == []


def test_a_write_that_fails_leaves_the_records_before(tmp_path, monkeypatch):
    import os

    path = tmp_path / "journal.jsonl"
    write(path)
    real = os.write

    def full(descriptor, data):
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    journal = JournalFile(path, "tests")
    monkeypatch.setattr(
        os, "write", lambda descriptor, data: full(descriptor, data[:11]) if len(data) < 60 else full(descriptor, data)
    )
    with pytest.raises(OSError, match="No space"):
        journal.append({"long": "x" * 7})
    monkeypatch.undo()
    journal.append({"after": 1})
    journal.close()
    assert read(path) == [*RECORDS, {"after": 1}]


def test_measurements_of_several_runs_share_a_file(tmp_path):
    path = tmp_path / "curves.jsonl"
    for run, value in (("one", 1.0), ("two", 2.0)):
        with Journal(path, run) as journal:
            assert journal.get("stem", 3) is None
            journal.put(value, "stem", 3)
    with Journal(path, "one") as journal:
        assert journal.get("stem", 3) == 1.0 and journal.get("stem", 4) is None
    with Journal(None, "one") as journal:
        journal.put(1.0, "stem")
        assert journal.get("stem") == 1.0


def test_trials_are_data_and_a_search_goes_on_after_them(tmp_path):
    path = tmp_path / "trials.jsonl"
    candidate = Candidate({"stem": 4}, ("join",), 0.5, Scheme(8, 8, per_channel_dense=False), True)
    trials = [
        Trial(0, "quick", {"target_macs": 0.5}, candidate, quick_score=0.9, macs=12, size=float("nan"), seconds=0.1),
        Trial(1, "measured", {"target_macs": 0.25}, state="failed", error="ValueError: nothing is left"),
        Trial(2, "measured", {}, Candidate(quantization="int8"), score=0.8, quick_score=0.9, latency_ms=1.5),
    ]
    curves = Sensitivity("net", "channels", "accuracy", True, 0.9, "l2", True, 60, ())
    ending = SearchEnding(2, True, {"accepted": True}, None, ("a note",))
    with TrialJournal(path, SEARCH) as journal:
        journal.guide_by(curves)
        for trial in trials:
            journal.add(trial)
        running = read_search(path)  # another process may look at it
        assert running.ending is None and running.trials == tuple(trials)
        journal.end(ending)
    assert trials[0].figures == {"macs": 12.0} and trials[2].stage_score == 0.8
    text = path.read_bytes()
    found = read_search(path)
    assert found.trials == tuple(trials) and found.sensitivity == curves and found.ending == ending
    assert found.header.to_dict() == json.loads(json.dumps(SEARCH.to_dict())) and not found.header.differences(SEARCH)
    assert path.read_bytes() == text
    with TrialJournal(path, SEARCH, resume=True) as journal:
        assert journal.trials == trials and journal.sensitivity == curves
    with pytest.raises(FileExistsError, match="has 3 trials: pass resume=True"):
        TrialJournal(path, SEARCH)
    other = dataclasses.replace(SEARCH, model_fingerprint="m2", seed=1)
    with pytest.raises(ValueError, match="another search: another model, seed 0, now 1"):
        TrialJournal(path, other, resume=True)
    for values in ({"number": 1}, {**trials[0].to_dict(), "stage": "slow"}):
        with pytest.raises(ValueError, match="is no trial"):
            Trial.from_dict(values)
    with pytest.raises(ValueError, match="is no candidate"):
        Candidate.from_dict({"widths": {}})
    with TrialJournal(path, SEARCH, resume=True):  # each error above has left the file to others
        pass
    assert TrialJournal(None, SEARCH).trials == []


def test_a_search_that_was_stopped_before_its_first_trial_leaves_its_folder_to_another(tmp_path):
    path = tmp_path / "trials.jsonl"
    other = dataclasses.replace(SEARCH, seed=1)
    with TrialJournal(path, SEARCH) as journal:
        journal.guide_by(Sensitivity("net", "channels", "accuracy", True, 0.9, "l2", True, 60, ()))
    with TrialJournal(path, other) as journal:
        assert journal.trials == [] and journal.sensitivity is None
        journal.add(Trial(0, "quick"))
    found = read_search(path)
    assert found.header.seed == 1 and len(found.trials) == 1 and found.sensitivity is None
    with pytest.raises(ValueError, match="another search: seed 1, now 0"):
        TrialJournal(path, SEARCH)


def test_what_is_read_as_a_search_and_is_none_says_what_it_is(tmp_path):
    path = tmp_path / "trials.jsonl"
    with pytest.raises(FileNotFoundError, match="trials.jsonl: pass the folder of a search"):
        read_search(tmp_path)
    with TrialJournal(path, SEARCH) as journal:
        journal.add(Trial(0, "quick"))
    first, header, trial = path.read_bytes().splitlines(keepends=True)
    for text, said in {
        b"": "is no journal of trials, it is empty: pass the trials.jsonl of a search",
        first[:9]: "its first line was not written to its end: pass",
        write(tmp_path / "curves.jsonl"): "it is one of tests: pass the trials.jsonl of a search",
        b"a,b\n1,2\n": "it is another file: pass",
        b'["record"]\n': "it is another file: pass",
        b"\n\xff": "it is another file: pass",
        first: "holds no search yet: it was stopped as it began, or begins now. Run it again",
        first + header[:20]: "holds no search yet",
        first + trial: "its first record, of what was asked for, is missing; run the search in another folder",
    }.items():
        path.write_bytes(text)
        for place in (path, tmp_path):
            with pytest.raises(ValueError, match=re.escape(said)):
                read_search(place)
        assert path.read_bytes() == text
    path.unlink()
    with JournalFile(path, "trials") as journal:
        journal.append({"header": {**SEARCH.to_dict(), "format": 0}})
    with pytest.raises(ValueError, match="its format is 0, and this version reads 1"):
        read_search(path)
