"""Files and folders are written whole or not at all: to a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Ends the name of an old folder that is put aside while the new one takes its place.
_REPLACED = "-replaced"


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; on success it becomes `path`, on any error it is removed.

    Args:
        path: the file to write. Its folder is made if it does not exist; a link is followed.
        overwrite: whether an existing file may be replaced.

    Yields:
        A path in the same folder, with the same suffix.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        IsADirectoryError: `path` is a folder.
        NotADirectoryError: a parent of it is a file.

    Example:
        >>> with atomic_path("out/model.tflite") as temporary:  # doctest: +SKIP
        ...     temporary.write_bytes(content)
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists and is not overwritten; remove it or choose another name.")
    check_parents(path)
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".unfinished-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files private; the finished file gets the mode any new file would have.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, replaces: Callable[[Path], bool] = lambda old: False) -> Iterator[Path]:
    """Give a temporary folder to fill; on success it becomes `path`, on any error it is removed.

    What a killed process left behind of an earlier attempt at the same folder is removed first; if it was killed
    just after it had put the old folder aside, the old folder is put back.

    Args:
        path: the folder to write. Its parent is made if it does not exist; a link is followed.
        replaces: whether a folder that exists may be replaced.

    Yields:
        An empty folder on the same file system.

    Raises:
        FileExistsError: the folder exists and may not be replaced.
        FileNotFoundError: `path` is a link to nothing.
        NotADirectoryError: `path` or a parent of it is a file.

    Example:
        >>> with atomic_folder("out/bundle") as temporary:  # doctest: +SKIP
        ...     (temporary / "README.md").write_text(text)
    """
    given, path = path, Path(os.path.realpath(path))  # "." has no name of its own
    prefix = f".unfinished-{path.name}-"
    for left in path.parent.glob(f"{glob.escape(prefix)}*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if not owner.isdecimal() or _runs(int(owner)):
            continue
        if left.name.endswith(_REPLACED) and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)
    check_folder(given, replaces=replaces)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f"{prefix}{os.getpid()}-"))
    replaced = temporary.with_name(temporary.name + _REPLACED)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o777 & ~mask)
        check_folder(path, replaces=replaces)
        if path.exists():
            path.rename(replaced)
        try:
            temporary.rename(path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def check_folder(path: str | Path, *, replaces: Callable[[Path], bool] = lambda old: False) -> None:
    """Refuse a folder that `atomic_folder` would refuse, before the slow part.

    Raises:
        FileExistsError: the folder exists and may not be replaced.
        FileNotFoundError: `path` is a link to nothing.
        NotADirectoryError: `path` or a parent of it is a file.
    """
    path = Path(path)
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file; give the name of a folder.")
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist; make it or unlink it.")
    check_parents(path)
    if path.exists() and not replaces(path):
        raise FileExistsError(f"{path} exists and is not overwritten; remove it or choose another name.")


def check_parents(path: str | Path) -> None:
    """Refuse a path below a file, before the slow part.

    Raises:
        NotADirectoryError: a parent of `path` is a file.
    """
    nearest = next(parent for parent in Path(path).absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file, so that nothing can be written below it.")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, as someone else's
        return True
    return True
