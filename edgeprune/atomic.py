"""Files and folders are written whole or not at all: in a hidden folder beside the target, then put in place."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from edgeprune import staging

# Returns whether an existing folder is replaced, or which of its files are, relative to it.
Replaces: TypeAlias = Callable[[Path], bool | Collection[str]]
# What a full disk answers. The system names no file then.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class NotOverwrittenError(FileExistsError):
    """A file or folder exists and would have been replaced."""


@contextlib.contextmanager
def atomic_path(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path to write to; on success it becomes `path`, on any error it is removed.

    What killed processes left in the folder is removed first.

    Args:
        path: the file to write. Its folder is made if it does not exist; a link is followed.
        overwrite: whether an existing file may be replaced. If not, a file that appears while this one is written
            is kept, too.

    Yields:
        A path on the same file system, with the same name.

    Raises:
        FileExistsError: `path` exists and `overwrite` is false.
        IsADirectoryError: `path` is a folder.
        NotADirectoryError: a parent of it is a file.
        OSError: `path` cannot be written; the message names it.

    Example:
        >>> with atomic_path("out/labels.txt") as temporary:
        ...     _ = temporary.write_text("cat")
        >>> Path("out/labels.txt").read_text()
        'cat'
    """
    with atomic_paths(path, overwrite=overwrite) as (temporary,):
        yield temporary


@contextlib.contextmanager
def atomic_paths(*paths: str | Path, overwrite: bool = True) -> Iterator[list[Path]]:
    """Yield temporary paths to write several files to; all of them get their names, or none does.

    A kill just while the files get their names is mended by the next run that writes into the folder; only files of
    different folders are then no longer all or none.

    Args:
        *paths: the files to write, as in `atomic_path`.
        overwrite: whether existing files may be replaced.

    Yields:
        As many paths.

    Raises:
        ValueError: a file is named twice.
        OSError: as in `atomic_path`.

    Example:
        >>> with atomic_paths("labels.txt", "plan.json") as (labels, plan):
        ...     _ = labels.write_text("cat"), plan.write_text("[]")
        >>> Path("labels.txt").read_text(), Path("plan.json").read_text()
        ('cat', '[]')
    """
    with _staged(paths, overwrite) as staged:
        yield list(staged)
        _put_in_place(staged, overwrite)


def check_paths(*paths: str | Path, overwrite: bool = True) -> None:
    """Refuse files that `atomic_paths` would refuse, before the slow part.

    Raises:
        ValueError: a file is named twice.
        OSError: as in `atomic_path`.
    """
    with _staged(paths, overwrite):
        pass


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, replaces: Replaces = lambda old: False) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it becomes `path`, on any error it is removed.

    A folder that exists is replaced in one step; the files in it that are somebody else's are kept. What killed
    processes left beside it is removed first.

    Args:
        path: the folder to write. Its parent is made if it does not exist; a link is followed.
        replaces: whether a folder that exists is replaced, or which of its files are; left out, none is.

    Yields:
        An empty folder on the same file system.

    Raises:
        FileExistsError: the folder exists and may not be replaced, or a file of somebody else's in it has the name of
            a new one.
        FileNotFoundError: `path` is a link to nothing.
        NotADirectoryError: `path` or a parent of it is a file.
        OSError: `path` cannot be written; the message names it.

    Example:
        >>> with atomic_folder("out/bundle") as temporary:
        ...     _ = (temporary / "README.md").write_text("whole")
        >>> Path("out/bundle/README.md").read_text()
        'whole'
    """
    given, target = Path(path), Path(os.path.realpath(path))
    with _staged_folder(given, target, replaces) as folder:
        yield folder / "new" / target.name
        _put_folder_in_place(folder, target, _replaced(given, replaces))


def check_folder(path: str | Path, *, replaces: Replaces = lambda old: False) -> None:
    """Refuse a folder that `atomic_folder` would refuse, before the slow part.

    Raises:
        OSError: as in `atomic_folder`.
    """
    with _staged_folder(Path(path), Path(os.path.realpath(path)), replaces):
        pass


def check_parents(path: str | Path) -> None:
    """Refuse a path below a file or a broken link.

    Raises:
        FileNotFoundError: a parent of `path` is a link to nothing.
        NotADirectoryError: a parent of `path` is a file.
        OSError: a parent is a link to itself, its name is too long, or it may not be read.
    """
    missing = []
    for nearest in (*Path(path).absolute().parents, Path("/")):
        if _exists(nearest):
            break
        missing.append(nearest)
    for parent in missing:
        if parent.is_symlink():
            raise FileNotFoundError(f"{parent} is a link to {os.readlink(parent)}, which does not exist.")
    if not nearest.is_dir():
        raise NotADirectoryError(f"{nearest} is a file, so that nothing can be written below it.")


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Have errors about the disk, and about a temporary name of `path`, name `path`."""
    try:
        yield
    except OSError as error:
        nameless = error.filename is None and error.errno in _DISK_ERRORS
        if nameless or (error.errno and staging.PREFIX in str(error.filename)):
            number = error.errno or 0  # every error of the disk has one
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


@contextlib.contextmanager
def _staged(paths: Collection[str | Path], overwrite: bool) -> Iterator[dict[Path, Path]]:
    """The temporary path of each file, and the real one."""
    targets = [_checked_file(Path(path), overwrite) for path in paths]
    if len(set(targets)) < len(targets):
        raise ValueError(f"One file is named twice: {', '.join(map(str, paths))}.")
    with contextlib.ExitStack() as stack:
        folders: dict[Path, Path] = {}
        staged: dict[Path, Path] = {}
        for path, target in zip(paths, targets, strict=True):
            if target.parent not in folders:
                stack.enter_context(naming(path if len(targets) == 1 else target.parent))
                folders[target.parent] = stack.enter_context(staging.staging(target.parent))
            _exists(target)  # now that its folder is there, a name too long for it is found
            # Named as it was asked for: what writes it may go by the ending, which the target of a link need not have.
            temporary = folders[target.parent] / "new" / Path(path).name
            if temporary in staged:
                raise ValueError(f"Two links named {temporary.name} lead into {target.parent}: write them one by one.")
            staged[temporary] = target
        yield staged


def _put_in_place(staged: Mapping[Path, Path], overwrite: bool) -> None:
    folders: dict[Path, dict[Path, Path]] = {}
    for temporary, target in staged.items():
        folders.setdefault(temporary.parent.parent, {})[temporary] = target
    if len(staged) > 1:
        for folder, files in folders.items():
            staging.prepare_undo(folder, files)
    try:
        for files in folders.values():
            staging.put_in_place(files, overwrite=overwrite)
    except BaseException:
        for folder in folders:
            staging.undo(folder)
        raise


def _checked_file(path: Path, overwrite: bool) -> Path:
    """The file that `path` means, links followed."""
    check_parents(path)
    if _exists(path):
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; pass the path of a file.")
        if not path.is_file():
            raise FileExistsError(f"{path} is a device or a pipe, and is not replaced by a file.")
        if not overwrite:
            raise NotOverwrittenError(f"{path} exists and is not overwritten; remove it or choose another name.")
    target = Path(os.path.realpath(path))
    if path.is_symlink() and not target.parent.is_dir():
        raise FileNotFoundError(f"{path} is a link into {target.parent}, which does not exist; make it or unlink it.")
    return target


@contextlib.contextmanager
def _staged_folder(path: Path, target: Path, replaces: Replaces) -> Iterator[Path]:
    """A hidden folder with an empty folder in it that has the name of the one to write."""
    check_parents(path)
    if not _exists(path) and path.is_symlink():
        raise FileNotFoundError(f"{path} is a link to {os.readlink(path)}, which does not exist; make it or unlink it.")
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file; pass the path of a folder.")
    if target == target.parent:
        raise FileExistsError(f"{path} is the root of all folders, and is not replaced.")
    with naming(path), staging.staging(target.parent) as folder:
        _replaced(path, replaces)
        (folder / "new" / target.name).mkdir()
        yield folder


def _replaced(path: Path, replaces: Replaces) -> Collection[str] | None:
    """The files of an existing folder that are replaced; None where there is no folder."""
    if not path.exists():
        return None
    replaced = replaces(path)
    if replaced is False:
        raise NotOverwrittenError(f"{path} exists and is not overwritten; remove it or choose another name.")
    if os.path.ismount(path):
        raise FileExistsError(f"{path} is where a file system begins, and is not replaced; name a folder inside it.")
    return [str(file.relative_to(path)) for file in path.rglob("*")] if replaced is True else replaced


def _put_folder_in_place(folder: Path, target: Path, replaced: Collection[str] | None) -> None:
    new = folder / "new" / target.name
    if replaced is None:
        try:
            new.rename(target)
        except OSError:
            if not target.exists():
                raise
            raise FileExistsError(f"{target} appeared while it was being made, and is not overwritten.") from None
        return
    for name in _kept(target, replaced):
        _keep(target / name, new / name)
    _copy_modes(target, new)
    old = staging.exchange(folder, target.name)
    for name in _kept(old, replaced):  # what came or changed in the last moment
        if not _is_folder(old / name) and not staging.same_file(old / name, target / name):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (old / name).replace(target / name)


def _kept(folder: Path, replaced: Collection[str]) -> list[Path]:
    """The files of a folder that are kept in it, and the folders that hold nothing, relative to it."""
    entries = (path for path in sorted(folder.rglob("*")) if not _is_folder(path) or not any(path.iterdir()))
    return [path.relative_to(folder) for path in entries if str(path.relative_to(folder)) not in replaced]


def _keep(source: Path, target: Path) -> None:
    """Move a file, or a folder that holds nothing, to its place in the new folder."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_folder(source):
            target.mkdir(exist_ok=True)
        else:
            staging.link_or_copy(source, target)
    except (FileExistsError, NotADirectoryError):
        raise FileExistsError(f"{source} is not replaced, and a new file has its name: move it away.") from None


def _copy_modes(old: Path, new: Path) -> None:
    for folder in (old, *filter(_is_folder, old.rglob("*"))):
        successor = new / folder.relative_to(old)
        if successor.is_dir():
            shutil.copymode(folder, successor)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _exists(path: Path) -> bool:
    """Whether there is something at `path`; links to themselves and names too long raise their OSError."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
