"""Code that a user names is found where Python would find it, and what is wrong with it is one error."""

from __future__ import annotations

import json
import sys

import pytest

from edgeprune.module_names import import_named, object_named


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a module, one beside it that it imports, and a package; `sys.path` is put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "beside.py").write_text("VALUE = 7\n")
    (tmp_path / "shelf" / "later.py").write_text("VALUE = 8\n")
    (tmp_path / "shelf" / "mine.py").write_text(
        "import beside\nruns = []\nclass Box:\n    @staticmethod\n    def load():\n"
        "        import later\n        return beside.VALUE, later.VALUE\n"
    )
    (tmp_path / "loose_in_folder.py").write_text("def load():\n    return 3\n")
    yield tmp_path
    for name in ("beside", "later", "loose_in_folder"):
        sys.modules.pop(name, None)


def test_installed_modules_and_what_lies_deeper():
    assert import_named("json") is json
    assert object_named("json:JSONDecoder.decode") is json.JSONDecoder.decode


def test_module_of_the_working_folder(folder):
    assert object_named("loose_in_folder:load")() == 3


def test_file_imports_what_lies_beside_it_also_later(folder):
    assert object_named("shelf/mine.py:Box.load")() == (7, 8)


def test_file_is_run_once_and_hides_nothing(folder):
    (folder / "json.py").write_text("def load():\n    return 'mine'\n")
    first = import_named("json.py")
    assert first is import_named(str(folder / "json.py")) is sys.modules[first.__name__]
    assert first.load() == "mine" and import_named("json") is json


def test_file_that_stopped_is_run_again_once_mended(folder):
    (folder / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ImportError, match="ZeroDivisionError"):
        import_named("broken.py")
    (folder / "broken.py").write_text("ANSWER = 42\n")
    assert object_named("broken.py:ANSWER") == 42


@pytest.mark.parametrize(
    ("content", "said", "cause"),
    [
        ("1 / 0", "could not be imported: ZeroDivisionError: division by zero", ZeroDivisionError),
        ("def f(:", "could not be imported: SyntaxError: ", SyntaxError),
        ("import sys; sys.exit(3)", "could not be imported: SystemExit: 3", SystemExit),
        ("import no_such_thing", "could not be imported: ModuleNotFoundError: No module named 'no_such_thing'", None),
    ],
    ids=["raises", "no Python", "exits", "imports nothing"],
)
@pytest.mark.parametrize("name", ["stopping.py", "stopping"])
def test_error_of_the_code_is_named_and_is_the_cause(folder, name, content, said, cause):
    (folder / "stopping.py").write_text(content)
    with pytest.raises(ImportError) as caught:
        import_named(name)
    assert str(caught.value).startswith(f"{name} {said}")
    assert isinstance(caught.value.__cause__, cause or ModuleNotFoundError)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("no_such_thing:load", ImportError, "There is no module 'no_such_thing', neither installed nor in"),
        ("json.no_such_thing:load", ImportError, r"There is no module 'json.no_such_thing'"),
        ("absent.py:load", FileNotFoundError, "There is no Python file at absent.py"),
        ("json:lods", ImportError, "json has no lods. Did you mean loads?"),
        ("json:JSONDecoder.nothing_like_it", ImportError, "json has no JSONDecoder.nothing_like_it.$"),
        ("json", ValueError, "'json' names nothing in a module: write package.module:name"),
        ("json:", ValueError, "names nothing in a module"),
        (":load", ValueError, "names nothing in a module"),
    ],
)
def test_names_of_nothing(folder, name, kind, message):
    with pytest.raises(kind, match=message):
        object_named(name)


def test_empty_name():
    with pytest.raises(ValueError, match="empty"):
        import_named(" ")
