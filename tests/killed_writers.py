"""Scripts that are killed while they write, and what a folder holds after that."""

from __future__ import annotations

import signal
import subprocess
import sys


def tree(folder):
    """Every file and folder below a folder, with what the files hold."""
    paths = sorted(path for path in folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_text() for path in paths}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def killed(script, *arguments):
    """Run a script that kills itself, and expect that it did."""
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


KILL_AT_RENAME = """
import os, signal, sys
from edgeprune import staging
from edgeprune.atomic import atomic_folder, atomic_paths
from pathlib import Path
staging._exchanged = lambda one, other: False           # as on a system that cannot exchange two folders
count, real = 0, {name: getattr(Path, name) for name in ("rename", "replace")}
def counting(name):
    def rename(self, target):
        global count
        count += 1
        if count == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real[name](self, target)
    return rename
for name in real:
    setattr(Path, name, counting(name))
"""
