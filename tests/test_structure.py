"""The shape of the package: rooms import only from rooms below, nothing imports in circles, a name means one thing.

`python tests/test_structure.py` prints what each test counts.
"""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import edgeprune as ep

PACKAGE = Path(ep.__file__).parent

# From the ground up. A room is a folder of the package or a module beside them.
ROOMS = (
    (
        "atomic",
        "crash_guard",
        "lazy",
        "module_names",
        "number_checks",
        "output_capture",
        "progress",
        "schemes",
        "staging",
        "text_table",
        "types",
    ),
    ("flavor",),
    ("layer_patterns",),
    ("tflite",),
    ("data",),
    ("conversion",),
    ("targets", "datasets", "models", "sparsity", "measure"),
    ("latency",),
    ("channels",),
    ("dead_channels", "fit", "one_shot"),
    ("depth",),
    ("quantization",),
    ("strip",),
    ("export",),
    ("bundle",),
    ("search",),
    ("report",),
    ("demo",),
    ("tfmot", "cli"),
)
# The public doors, and what starts the command line: they name modules of every room.
DOORS = {"edgeprune", "edgeprune.__main__"}
# Two modules of one Protocol define the same names on purpose: `sparsity.mechanism.Mechanism`, the four kinds of
# bundle, whose modules `bundle.bundle` calls alike, and the layers of each Keras that `quantization` puts into models.
INTERCHANGEABLE = (
    {"edgeprune.quantization.layers_keras", "edgeprune.quantization.layers_tf_keras"},
    {"edgeprune.sparsity.constraint_masks", "edgeprune.sparsity.wrapper_masks"},
    {f"edgeprune.bundle.{kind}" for kind in ("computer", "microcontroller", "npu", "phone")},
)


def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("edgeprune", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imports(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """The modules of the package that a module imports anywhere: inside functions and for types only too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in known else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & known) - {name, "edgeprune"}


def graph() -> dict[str, set[str]]:
    """Each module with those it imports."""
    trees = modules()
    return {name: imports(name, tree, set(trees)) for name, tree in trees.items()}


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules each of which can be reached from every other of its set."""

    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for following in edges.get(waiting.pop(), ()):
                if following not in seen:
                    seen.add(following)
                    waiting.append(following)
        return seen

    reach = {name: reached(name) for name in edges}
    found = {frozenset(other for other in reach[name] if name in reach[other]) for name in edges if name in reach[name]}
    return [set(circle) for circle in found]


def room(name: str) -> str:
    """The folder or module of the package that a module is in."""
    return name.split(".")[1]


def upward(edges: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that lead from a room to one above it."""
    floor = {name: number for number, names in enumerate(ROOMS) for name in names}

    def below(other: int, this: int) -> bool:
        return other < this or other == this == 0

    return sorted(
        (name, other)
        for name, others in edges.items()
        if name not in DOORS
        for other in others
        if room(name) != room(other) and not below(floor[room(other)], floor[room(name)])
    )


def definitions(tree: ast.Module) -> set[str]:
    """The functions, classes and constants that a module defines."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def defined_twice() -> dict[str, list[str]]:
    """The names without an underscore that several modules define."""
    homes = defaultdict(list)
    for name, tree in modules().items():
        for defined in definitions(tree):
            homes[defined].append(name)
    return {
        defined: names
        for defined, names in sorted(homes.items())
        if len(names) > 1 and not any(set(names) <= allowed for allowed in INTERCHANGEABLE)
    }


def test_every_module_has_a_room():
    known = {name for names in ROOMS for name in names}
    assert {room(name) for name in modules() if name not in DOORS} == known


def test_nothing_imports_in_a_circle():
    assert circles(graph()) == []


def test_a_room_imports_only_from_rooms_below():
    assert upward(graph()) == []


def test_no_name_is_defined_twice():
    assert defined_twice() == {}


def test_no_room_holds_more_than_a_quarter_of_the_package():
    lines = defaultdict(int)
    for path in PACKAGE.rglob("*.py"):
        lines[path.relative_to(PACKAGE).parts[0]] += len(path.read_text().splitlines())
    assert max(lines.values()) < sum(lines.values()) / 4, lines


def test_a_file_has_at_most_450_lines():
    long = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: count for name, count in long.items() if count > 450} == {}


@pytest.mark.parametrize(
    "word, homes",
    [
        ("_nodes_by_depth", {"flavor"}),  # a model's graph is read in one room
        ("_inbound_nodes", {"flavor"}),
        ("fnmatch", {"layer_patterns"}),  # a pattern of layer names means the same everywhere
        (
            "schema_py_generated",
            {"tflite", "measure", "latency"},
        ),  # .tflite files; some swap operators, some take one out
    ],
)
def test_one_room_knows(word, homes):
    paths = (path for path in PACKAGE.rglob("*.py") if word in path.read_text())
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in paths} == homes


@pytest.mark.parametrize(
    "edges, expected",
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}, [{"a", "b"}, {"c", "d"}]),
    ],
)
def test_circles_are_found(edges, expected):
    assert sorted(map(sorted, circles(edges))) == sorted(map(sorted, expected))


if __name__ == "__main__":
    print("circles:", circles(graph()))
    print("upward:", *(f"  {a} -> {b}" for a, b in upward(graph())), sep="\n")
    print("defined twice:", *(f"  {name}: {homes}" for name, homes in defined_twice().items()), sep="\n")
