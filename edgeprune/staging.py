"""A hidden folder beside the files that are being written, which the next run removes if this one is killed.

    .unfinished-edgeprune-k3x9_a2b/    locked for as long as its owner runs
        new/NAME                       what becomes NAME
        undo/made/NAME                 the same file again, while several are put in place together
        undo/old/NAME                  what NAME was before

The lock is the system's (flock), which ends with its owner however that ends. A process number would not do: in a
container the next run has the number of the killed one.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PREFIX = ".unfinished-edgeprune-"
_ATTEMPTS = 20
_RENAME_EXCHANGE = 2  # of Linux's renameat2
_AT_FDCWD = -100


@contextlib.contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """Make a locked folder with an empty folder `new` in it, and remove it at the end.

    What killed runs left in `parent` is removed first.

    Args:
        parent: the folder to make it in. It is made if it does not exist, and removed if nothing was put into it.

    Yields:
        The hidden folder.
    """
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        remove_leftovers(parent)
        with contextlib.ExitStack() as ending:
            with _signals_held():
                folder, handle = _make_locked(parent)
                ending.callback(os.close, handle)
                ending.callback(_remove, folder)
            (folder / "new").mkdir()
            yield folder
    finally:
        for made in missing:
            with contextlib.suppress(OSError):  # it holds what was written
                made.rmdir()


def remove_leftovers(parent: Path) -> None:
    """Remove what killed runs left in a folder; what they had replaced by half is put back first."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # a run still uses it, or another run removed it meanwhile
            handle = _open(folder)
            try:
                _lock(handle)
                if not _is_complete(folder):
                    undo(folder)
                shutil.rmtree(folder)
            finally:
                os.close(handle)


def put_in_place(files: Mapping[Path, Path], *, overwrite: bool) -> None:
    """Move finished files to their names.

    Args:
        files: what each becomes, by where it is in `new`.
        overwrite: whether existing files are replaced.

    Raises:
        FileExistsError: a file of this name exists and `overwrite` is false.
    """
    for new, target in files.items():
        if overwrite:
            new.replace(target)
        else:
            _place_beside(new, target)


def prepare_undo(folder: Path, files: Mapping[Path, Path]) -> None:
    """Keep what `undo` needs, before the first of several files is put in place."""
    for kept in ("old", "made"):
        (folder / "undo" / kept).mkdir(parents=True)
    for new, target in files.items():
        link_or_copy(new, folder / "undo" / "made" / target.name)
        if target.exists():
            link_or_copy(target, folder / "undo" / "old" / target.name)


def undo(folder: Path) -> None:
    """Take back what was put in place; what somebody else has put there since is kept."""
    made, old = folder / "undo" / "made", folder / "undo" / "old"
    for entry in _entries(made):
        target = folder.parent / entry.name
        if same_file(entry, target) and not (old / entry.name).exists():
            target.unlink()
    for entry in _entries(old):
        target = folder.parent / entry.name
        if not os.path.lexists(target) or same_file(made / entry.name, target):
            entry.replace(target)


def exchange(folder: Path, name: str) -> Path:
    """Let a folder in `new` and the folder that has its name change places.

    Returns:
        Where the old folder is now.
    """
    new, target = folder / "new" / name, folder.parent / name
    if _exchanged(new, target):
        return new
    # In between there is no folder of this name; where a kill meets that, the next run puts the old one back.
    aside = folder / "undo" / "old" / name
    aside.parent.mkdir(parents=True)
    try:
        target.rename(aside)
        new.rename(target)
    except BaseException:
        undo(folder)
        raise
    return aside


def link_or_copy(source: Path, target: Path) -> None:
    """Link a file under a second name; a copy where the file system knows no links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _make_locked(parent: Path) -> tuple[Path, int]:
    """A new folder and the handle of its lock; again if another run took it for a leftover or removed `parent`."""
    for attempt in range(_ATTEMPTS):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            handle = _open(folder)
            try:
                _lock(handle)
            except BlockingIOError:
                os.close(handle)
                continue
            except OSError:  # a file system without locks, on which no run can remove what another one left
                return folder, handle
            if os.path.samestat(os.fstat(handle), folder.stat()):
                return folder, handle
            os.close(handle)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise FileNotFoundError(f"{parent}: another process removes again and again what is written here.")


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let what signals raise wait until the end of the body, so that nothing is made that nobody knows of yet.

    A mask would not do: what one thread blocks another one, as TensorFlow has them, is sent. Python runs its handlers
    in the main thread alone, so that another one is not interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with contextlib.ExitStack() as restored:
        restored.callback(_raise_first, came)  # runs last, when the handlers are back
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(handler := signal.getsignal(number)):
                restored.callback(signal.signal, number, handler)
                signal.signal(number, lambda number, frame: came.append(number))
        yield


def _raise_first(came: Sequence[int]) -> None:
    if came:
        signal.raise_signal(came[0])


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _lock(handle: int) -> None:
    """Lock a folder until its handle is closed; BlockingIOError if its owner still runs."""
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:  # a signal came meanwhile
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _place_beside(new: Path, target: Path) -> None:
    """Rename a file unless the name is taken."""
    try:
        os.link(new, target)
    except OSError:
        # The name is taken, or the file system knows no links.
        if os.path.lexists(target):
            raise FileExistsError(f"{target} appeared while it was being made, and is not overwritten.") from None
        new.replace(target)


def _is_complete(folder: Path) -> bool:
    """Whether all of several files were put in place, so that there is nothing to undo."""
    made = _entries(folder / "undo" / "made")
    return bool(made) and all(same_file(entry, folder.parent / entry.name) for entry in made)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def same_file(one: Path, other: Path) -> bool:
    """Whether two names are those of one file; links are not followed."""
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except FileNotFoundError:
        return False


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, where the system can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0
