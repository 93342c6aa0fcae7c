"""Folders are written whole or not at all; what is somebody else's stays."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed_writers import KILL_AT_RENAME, killed, tree, write

from edgeprune import staging
from edgeprune.atomic import atomic_folder, check_folder


@pytest.mark.parametrize("exchanges", [True, False], ids=["one step", "two steps"])
def test_files_of_somebody_else_stay_in_a_folder(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(staging, "_exchanged", lambda one, other: False)
    old = {"card": "1", "src/main": "1", "src/gone": "1", "notes": "n", "src/mine/deep": "d"}
    write(tmp_path / "b", old)
    (tmp_path / "b" / "empty").mkdir()
    (tmp_path / "b" / "link").symlink_to("notes")
    (tmp_path / "b" / "dangling").symlink_to("nothing")
    (tmp_path / "b" / "src" / "mine").chmod(0o700)
    inode = (tmp_path / "b" / "notes").stat().st_ino
    with atomic_folder(tmp_path / "b", replaces=lambda old: {"card", "src/main", "src/gone"}) as folder:
        write(folder, {"card": "2", "src/main": "2", "new": "2"})
        (tmp_path / "b" / "meanwhile").write_text("m")
    b = tmp_path / "b"
    assert os.readlink(b / "link") == "notes" and os.readlink(b / "dangling") == "nothing"
    for link in ("link", "dangling"):
        (b / link).unlink()
    assert tree(b) == {
        "card": "2", "new": "2", "src": None, "src/main": "2", "src/mine": None, "src/mine/deep": "d",
        "notes": "n", "empty": None, "meanwhile": "m",
    }  # fmt: skip
    assert (b / "notes").stat().st_ino == inode and (b / "src" / "mine").stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize(("mine", "theirs"), [("a", "a"), ("a/b", "a"), ("a", "a/b")])
def test_a_new_file_with_the_name_of_somebody_else_s_is_refused(tmp_path, mine, theirs):
    write(tmp_path / "b", {"card": "1", mine: "mine"})
    before = tree(tmp_path)
    with pytest.raises(FileExistsError, match="a new file has its name: move it away"):
        with atomic_folder(tmp_path / "b", replaces=lambda old: {"card"}) as folder:
            write(folder, {"card": "2", theirs: "theirs"})
    assert tree(tmp_path) == before


def test_a_folder_that_appears_meanwhile_stays(tmp_path):
    with pytest.raises(FileExistsError), atomic_folder(tmp_path / "b") as folder:
        write(folder, {"mine": "1"})
        write(tmp_path / "b", {"theirs": "1"})
    assert tree(tmp_path) == {"b": None, "b/theirs": "1"}


@pytest.mark.parametrize("at", [1, 2])
def test_a_kill_between_two_renames_of_a_folder_loses_nothing(tmp_path, at):
    script = (
        KILL_AT_RENAME
        + """
with atomic_folder("b", replaces=lambda old: {"card"}) as folder:
    (folder / "card").write_text("new")
"""
    )
    write(tmp_path / "b", {"card": "old", "notes": "n"})
    killed(f"import os; os.chdir({str(tmp_path)!r})\n" + script, at)
    with pytest.raises(FileExistsError):
        check_folder(tmp_path / "b")
    assert tree(tmp_path) == {"b": None, "b/card": "old", "b/notes": "n"}


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    write(tmp_path / "b", {"old": "1"})
    rename = Path.rename

    def fails(self, target):
        if self.parent.name == "new":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(staging, "_exchanged", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="no"), atomic_folder(tmp_path / "b", replaces=lambda old: True):
        pass
    assert tree(tmp_path) == {"b": None, "b/old": "1"}


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    write(tmp_path / "disk" / "b", {"old": "1"})
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "b")
    with atomic_folder(tmp_path / "link", replaces=lambda old: True) as folder:
        write(folder, {"new": "1"})
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "link") == ["new"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["b", "disk", "link", "new"], "nothing is left beside"


def test_a_link_to_nothing_is_refused_at_once(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for refuses in (check_folder, lambda path: atomic_folder(path, replaces=lambda old: True).__enter__()):
        with pytest.raises(FileNotFoundError, match="link is a link to .*gone, which does not exist"):
            refuses(tmp_path / "link")
    assert os.listdir(tmp_path) == ["link"]


names = st.sampled_from(["a", "b", "c/a", "c/b", "c/d/a"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(names), st.sets(names), st.sets(names), st.booleans())
def test_no_file_of_somebody_else_is_ever_lost(tmp_path_factory, owned, mine, new, exchanges):
    """Whatever an old folder holds: afterwards it is refused and as before, or holds the new files and the others."""
    here = tmp_path_factory.mktemp("b")
    mine -= owned
    write(here / "b", {name: "owned" for name in owned} | {name: "mine" for name in mine})
    (here / "b").mkdir(exist_ok=True)
    before = tree(here)
    with pytest.MonkeyPatch.context() as patch:
        if not exchanges:
            patch.setattr(staging, "_exchanged", lambda one, other: False)
        try:
            with atomic_folder(here / "b", replaces=lambda old: owned) as folder:
                write(folder, {name: "new" for name in new})
        except FileExistsError:
            assert mine & new and tree(here) == before
            return
    files = {name: text for name, text in tree(here / "b").items() if text is not None}
    assert not mine & new and files == {name: "mine" for name in mine} | {name: "new" for name in new}
    assert os.listdir(here) == ["b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("step", ["mkdtemp", "_open", "_lock"])
def test_a_signal_in_the_instant_in_which_the_hidden_folder_is_made_leaves_nothing(tmp_path, monkeypatch, number, step):
    owner = staging.tempfile if step == "mkdtemp" else staging
    real, before = getattr(owner, step), signal.getsignal(number)

    class Stopped(BaseException):
        pass

    def stop(*arguments):
        raise Stopped

    def interrupted(*arguments, **named):
        made = real(*arguments, **named)
        os.kill(os.getpid(), number)
        return made

    monkeypatch.setattr(owner, step, interrupted)
    signal.signal(number, stop)
    try:
        with pytest.raises(Stopped), atomic_folder(tmp_path / "b"):
            pytest.fail("the signal came before")
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert not os.listdir(tmp_path)


def test_a_folder_is_written_in_another_thread(tmp_path):
    def written():
        with atomic_folder(tmp_path / "b") as folder:
            write(folder, {"card": "1"})

    thread = threading.Thread(target=written)
    thread.start()
    thread.join()
    assert tree(tmp_path / "b") == {"card": "1"}
