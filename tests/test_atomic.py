"""Files and folders are written whole or not at all, whatever ends the writer; what is somebody else's stays."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from killed_writers import KILL_AT_RENAME, killed, tree, write

from edgeprune import atomic, staging
from edgeprune.atomic import atomic_folder, atomic_path, atomic_paths, check_folder, check_paths

# One file


def test_a_file_has_its_name_and_mode_only_when_it_is_whole(tmp_path):
    with atomic_path(tmp_path / "deep" / "m.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "deep" / "m.txt").exists()
    assert tree(tmp_path) == {"deep": None, "deep/m.txt": "whole"}
    plain = tmp_path / "plain"
    plain.write_text("")
    assert (tmp_path / "deep" / "m.txt").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_nothing_not_even_new_folders(tmp_path, error):
    (tmp_path / "old").write_text("old")
    for path in (tmp_path / "old", tmp_path / "new" / "folder" / "m.txt"):
        with pytest.raises(error), atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error
    assert tree(tmp_path) == {"old": "old"}


def test_a_file_that_appears_meanwhile_stays(tmp_path):
    with pytest.raises(FileExistsError, match="m.txt appeared while it was being made"):
        with atomic_path(tmp_path / "m.txt", overwrite=False) as temporary:
            temporary.write_text("mine")
            (tmp_path / "m.txt").write_text("theirs")
    assert tree(tmp_path) == {"m.txt": "theirs"}


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with atomic_path(tmp_path / "m.txt", overwrite=False) as temporary:
        temporary.write_text("mine")
    with pytest.raises(FileExistsError), atomic_path(tmp_path / "n.txt", overwrite=False) as temporary:
        temporary.write_text("mine")
        (tmp_path / "n.txt").write_text("theirs")
    write(tmp_path / "b", {"mine": "1", "notes": "n"})
    with atomic_folder(tmp_path / "b", replaces=lambda old: {"mine"}) as folder:
        write(folder, {"mine": "2"})
    assert tree(tmp_path) == {"m.txt": "mine", "n.txt": "theirs", "b": None, "b/mine": "2", "b/notes": "n"}


def test_many_writers_of_one_new_file_and_one_wins(tmp_path):
    outcomes = []

    def writer(number):
        try:
            with atomic_path(tmp_path / "new" / "m.txt", overwrite=False) as temporary:
                temporary.write_text(str(number))
                time.sleep(0.001)
            outcomes.append(number)
        except FileExistsError:
            outcomes.append(None)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number in outcomes if number is not None]
    assert len(outcomes) == 24 and tree(tmp_path) == {"new": None, "new/m.txt": str(winner)}


# Paths that cannot be written


def refusals(path):
    """What the check and the writing itself say of a file."""
    for attempt in (check_paths, lambda path: atomic_path(path).__enter__()):
        with pytest.raises(OSError) as caught:
            attempt(path)
        yield str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file/m.txt", "file is a file, so that nothing can be written below it"),
        ("file/a/b/m.txt", "file is a file, so that nothing can be written below it"),
        ("broken/m.txt", "is a link to gone, which does not exist"),
        ("broken/new/m.txt", "is a link to gone, which does not exist"),
        ("loop.txt", "Too many levels of symbolic links"),
        ("x" * 256, "File name too long"),
        ("x" * 256 + "/m.txt", "File name too long"),
        ("new/" + "x" * 256, "File name too long"),
        ("new/" + "x" * 256 + "/m.txt", "File name too long"),
        ("folder", "is a folder; pass the path of a file"),
        ("pipe", "is a device or a pipe"),
    ],
)
def test_paths_that_cannot_be_written_are_found_by_the_check(tmp_path, name, message):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    (tmp_path / "broken").symlink_to("gone")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for said in refusals(tmp_path / name):
        assert message in said and str(tmp_path) in said and staging.PREFIX not in said
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["/", "//", "/.", "."])
def test_the_root_and_the_current_folder_are_no_files(name):
    for said in refusals(name):
        assert "is a folder" in said
    with pytest.raises(FileExistsError):
        check_folder(name)


def test_the_longest_name_can_be_written(tmp_path):
    name = "x" * 251 + ".txt"
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("whole")
    with atomic_folder(tmp_path / ("y" * 255)):
        pass
    assert sorted(map(len, os.listdir(tmp_path))) == [255, 255]


def test_a_folder_one_may_not_write_to_is_named():
    script = """
import os
from edgeprune.atomic import check_folder, check_paths
os.mkdir("closed", 0o555)
if os.getuid() == 0:  # who may write anywhere
    os.setuid(65534)
for check, path in ((check_paths, "closed/m.txt"), (check_paths, "closed/new/m.txt"), (check_folder, "closed/b")):
    try:
        check(path)
    except PermissionError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's folders are closed to another user
        Path(folder).chmod(0o755)
        environment = {**os.environ, "PYTHONPATH": str(Path(atomic.__file__).parents[1])}
        arguments = [sys.executable, "-c", script]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=folder, env=environment)
    said = done.stdout.splitlines()
    assert len(said) == 3 and staging.PREFIX not in done.stdout, done
    for line, name in zip(said, ("closed/m.txt", "closed/new", "closed/b"), strict=True):
        assert "Permission denied" in line and name in line


def test_a_full_disk_names_the_file(tmp_path):
    for writes, name in ((atomic_path, "m.txt"), (atomic_folder, "b")):
        with pytest.raises(OSError, match=f"No space left on device: '.*{name}'"), writes(tmp_path / name):
            raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="other.txt"), atomic_path(tmp_path / "m.txt"):
        raise OSError(errno.ENOENT, "No such file", "other.txt")


def test_a_link_to_a_file_is_followed_and_the_temporary_name_keeps_its_ending(tmp_path):
    (tmp_path / "store").mkdir()
    for name in ("there", "new"):
        (tmp_path / f"{name}.txt").symlink_to(tmp_path / "store" / name)
    write(tmp_path, {"store/there": "old"})
    with atomic_paths(tmp_path / "there.txt", tmp_path / "new.txt") as paths:
        for path in paths:
            assert path.suffix == ".txt"
            path.write_text("new")
    assert tree(tmp_path / "store") == {"there": "new", "new": "new"} and (tmp_path / "new.txt").is_symlink()
    (tmp_path / "broken.txt").symlink_to(tmp_path / "gone" / "x")
    for said in refusals(tmp_path / "broken.txt"):
        assert "broken.txt is a link into" in said and "gone, which does not exist" in said
    assert not (tmp_path / "gone").exists()


# Several files


def test_several_files_are_written_together_or_not_at_all(tmp_path):
    write(tmp_path, {"a": "old a"})
    with pytest.raises(OSError, match="full"), atomic_paths(tmp_path / "a", tmp_path / "b" / "b") as (a, b):
        a.write_text("new a")
        raise OSError("full")
    assert tree(tmp_path) == {"a": "old a"}
    with atomic_paths(tmp_path / "a", tmp_path / "b" / "b") as (a, b):
        a.write_text("new a")
        b.write_text("new b")
    assert tree(tmp_path) == {"a": "new a", "b": None, "b/b": "new b"}


def test_one_of_several_files_appears_meanwhile(tmp_path):
    names = [tmp_path / "a", tmp_path / "other" / "b", tmp_path / "c"]
    with pytest.raises(FileExistsError), atomic_paths(*names, overwrite=False) as unfinished:
        for path in unfinished:
            path.write_text("mine")
        (tmp_path / "c").write_text("theirs")
    assert tree(tmp_path) == {"c": "theirs"}


def test_a_failure_at_the_last_of_several_files_takes_the_first_back(tmp_path, monkeypatch):
    write(tmp_path, {"a": "old a", "c/c": "old c"})
    replace = Path.replace

    def fails(self, target):
        if target.name == "c" and self.parent.name == "new":
            raise OSError("no")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    names = [tmp_path / "a", tmp_path / "b", tmp_path / "c" / "c"]
    with pytest.raises(OSError, match="no"), atomic_paths(*names) as unfinished:
        for path in unfinished:
            path.write_text("new")
    assert tree(tmp_path) == {"a": "old a", "c": None, "c/c": "old c"}


def test_a_file_named_twice_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ValueError, match="One file is named twice"):
        check_paths(tmp_path / "a", tmp_path / "link")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_kill_between_several_files_is_taken_back_by_the_next_run(tmp_path, at):
    script = (
        KILL_AT_RENAME
        + """
with atomic_paths("a", "b", "c") as paths:
    for path in paths:
        path.write_text("new")
"""
    )
    write(tmp_path, {"a": "old a", "c": "old c"})
    killed(f"import os; os.chdir({str(tmp_path)!r})\n" + script, at)
    with atomic_path(tmp_path / "next") as temporary:
        temporary.write_text("next")
    assert tree(tmp_path) == {"a": "old a", "c": "old c", "next": "next"}


def test_several_files_that_a_kill_met_after_the_last_stay(tmp_path):
    script = """
import os, signal, sys
from edgeprune import staging
from edgeprune.atomic import atomic_paths
staging._remove = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
os.chdir(sys.argv[1])
with atomic_paths("a", "b") as paths:
    for path in paths:
        path.write_text("new")
"""
    write(tmp_path, {"a": "old"})
    killed(script, tmp_path)
    check_paths(tmp_path / "next")
    assert tree(tmp_path) == {"a": "new", "b": "new"}


def test_what_somebody_wrote_after_a_kill_is_not_taken_back(tmp_path):
    script = (
        KILL_AT_RENAME
        + """
with atomic_paths("a", "b") as paths:
    for path in paths:
        path.write_text("new")
"""
    )
    write(tmp_path, {"a": "old a", "b": "old b"})
    killed(f"import os; os.chdir({str(tmp_path)!r})\n" + script, 2)
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_text("written since")
    check_paths(tmp_path / "next")
    assert tree(tmp_path) == {"a": "written since", "b": "old b"}


# What killed runs left


SLEEPS = """
import sys, time
from edgeprune.atomic import atomic_folder, atomic_path
writes = {"file": atomic_path, "folder": atomic_folder}[sys.argv[1]]
with writes(sys.argv[2]) as temporary:
    temporary.write_text("half") if sys.argv[1] == "file" else (temporary / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_next_run_removes_what_a_kill_left_and_nothing_else(tmp_path, kind):
    write(tmp_path, {".unfinished-edgeprune-mine": "a file of the user's", ".unfinished/x": "another"})
    mine = tree(tmp_path)
    arguments = [sys.executable, "-c", SLEEPS, kind, str(tmp_path / "b")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        check_paths(tmp_path / "other")
        assert len(os.listdir(tmp_path)) == 3, "what a running process uses stays"
        process.kill()
    assert len(os.listdir(tmp_path)) == 3 and not (tmp_path / "b").exists()
    check_paths(tmp_path / "other")
    assert tree(tmp_path) == mine


def test_two_writers_in_one_process_keep_out_of_each_other_s_way(tmp_path):
    with atomic_folder(tmp_path / "b") as first:
        with pytest.raises(KeyError), atomic_folder(tmp_path / "b"):
            raise KeyError
        (first / "whole").write_text("whole")
    assert tree(tmp_path) == {"b": None, "b/whole": "whole"}
