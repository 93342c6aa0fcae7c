"""Python code that a user names in words: `package.module`, `path/to/file.py`, and `:name` for something in it.

Whoever names code runs it: only what the user wrote comes here, never a name from a model file.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any


def import_named(module: str) -> ModuleType:
    """Import a module by its name, or a Python file by its path.

    Args:
        module: `"package.module"`, which may lie in the working folder, or a path that ends in `.py`, whose imports may
            lie beside it. A file is run once in a process, however often it is named.

    Returns:
        The module.

    Raises:
        FileNotFoundError: there is no file at the path.
        ImportError: there is no such module, or its import stopped with an error, which is the cause.
        ValueError: `module` is empty.

    Example:
        >>> import_named("json.decoder").__name__
        'json.decoder'
    """
    if not module.strip():
        raise ValueError("The name of the module is empty.")
    if module.endswith(".py"):
        return _import_file(Path(module))
    try:
        with _first_on_path(Path.cwd()):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):  # it is there, and imports something that is not
            raise _stopped(module, error) from error
        raise ImportError(f"There is no module {error.name!r}, neither installed nor in {Path.cwd()}.") from error
    except (Exception, SystemExit) as error:  # whatever the user's code does
        raise _stopped(module, error) from error


def object_named(name: str) -> Any:
    """What a name such as `"package.module:function"` or `"path/to/file.py:function"` stands for.

    Args:
        name: a module as `import_named` accepts it, a colon, and the name of something in it, with dots for what lies
            deeper.

    Returns:
        The function, class or other object.

    Raises:
        FileNotFoundError: there is no file at the path.
        ImportError: there is no such module, it has nothing of that name, or its import stopped with an error.
        ValueError: `name` is not of this form.

    Example:
        >>> object_named("json:JSONDecoder.decode").__name__
        'decode'
    """
    module, _, path = name.rpartition(":")
    if not (module.strip() and path.strip()):
        raise ValueError(f"{name!r} names nothing in a module: write package.module:name or path/to/file.py:name.")
    found: Any = import_named(module)
    for part in path.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            raise ImportError(f"{module} has no {path}." + (f" Did you mean {close[0]}?" if close else ""))
        found = getattr(found, part)
    return found


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"There is no Python file at {path}.")
    place = path.resolve()
    # A name of its own, which hides no installed module.
    name = f"{place.stem}_{hashlib.sha256(os.fsencode(place)).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None, "the file's name ends in .py"
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _first_on_path(place.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code does
        del sys.modules[name]
        raise _stopped(str(path), error) from error
    return module


@contextlib.contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """While the body runs, imports are looked for in a folder first, as Python does for a script; afterwards last."""
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have changed the path
            sys.path.remove(str(folder))
        if str(folder) not in sys.path:  # for imports inside functions, which run later
            sys.path.append(str(folder))


def _stopped(module: str, error: BaseException) -> ImportError:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return ImportError(f"{module} could not be imported: {said}")
