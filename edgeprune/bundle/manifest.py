"""The list of a bundle's files, by which a later export knows what it may replace.

`SHA256SUMS` is what `sha256sum` writes and checks: `cd bundle; sha256sum -c SHA256SUMS`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgeprune.atomic import check_folder

MANIFEST = "SHA256SUMS"
_FIRST_LINE = "# The files of a bundle that edgeprune wrote; sha256sum -c SHA256SUMS checks them."


def write_manifest(folder: Path) -> None:
    """List all files of a folder, with their hashes."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [_FIRST_LINE, *(f"{_sha256(folder / name)}  {name}" for name in names)]
    (folder / MANIFEST).write_text("\n".join(lines) + "\n", encoding="utf-8")


def written_files(folder: Path) -> set[str]:
    """The files of a bundle that are still as they were written, and its manifest.

    Raises:
        FileExistsError: the folder holds something and is no bundle, or files of the bundle were changed since.
    """
    if not any(folder.iterdir()):
        return set()
    hashes = _read_manifest(folder)
    changed = [name for name, digest in hashes.items() if _is_changed(folder / name, digest)]
    if changed:
        raise FileExistsError(
            f"{folder} is not replaced: {', '.join(sorted(changed))} changed since the bundle was written. Move what "
            "you changed away, or choose another folder."
        )
    return {*hashes, MANIFEST}


def check_bundle_folder(folder: str | Path, inputs: Iterable[str | Path] = (), *, overwrite: bool = False) -> None:
    """Refuse a folder that no bundle can be written to, before the slow part.

    Args:
        folder: where the bundle will be.
        inputs: files that the bundle is made of.
        overwrite: whether a bundle written before may be replaced.

    Raises:
        ValueError: an input lies inside the folder.
        OSError: as in `atomic_folder`.
    """
    for path in inputs:
        if Path(folder).exists() and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise ValueError(f"{path} is inside {folder}, which the bundle replaces: choose another folder for it.")
    check_folder(folder, replaces=lambda old: overwrite and written_files(old))


def _read_manifest(folder: Path) -> Mapping[str, str]:
    """File name to hash."""
    path = folder / MANIFEST
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError, ValueError):
        first, lines = "", []
    if first != _FIRST_LINE:
        raise FileExistsError(
            f"{folder} is no bundle that edgeprune wrote (it has no {MANIFEST} of edgeprune), and is not replaced; "
            "choose another folder."
        )
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _is_changed(path: Path, digest: str) -> bool:
    """Whether a file is another one than was written; one that was removed is not."""
    return os.path.lexists(path) and (path.is_symlink() or not path.is_file() or _sha256(path) != digest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
