"""Which room may know which: imports are parsed, and what importing costs is measured."""

import ast
import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from niftynet_compat import load_config

ROOT = Path(__file__).parents[1]
PACKAGES = ("niftynet_compat", "pimms_tf")
HEAVY = {"tensorflow", "keras", "tensorboard"}

# The floors from the top down, and on each its rooms: a room imports rooms of lower floors, itself, and those beside it
# that stand further right. What lies loose in pimms_tf may be used everywhere.
_FLOORS = (
    ("pimms_tf.commands",),
    ("pimms_tf.check", "pimms_tf.actions", "pimms_tf.clinic", "pimms_tf.comparison", "pimms_tf.server"),
    ("pimms_tf.study",),
    ("pimms_tf.weights", "pimms_tf.serving", "pimms_tf.graph", "pimms_tf.inference", "pimms_tf.training"),
    ("pimms_tf.pipeline", "pimms_tf.models"),
    ("pimms_tf.simulation", "pimms_tf.evaluation", "pimms_tf.data"),
    ("niftynet_compat",),
)
_LOOSE = {"pimms_tf", "pimms_tf.__main__"} | {
    f"pimms_tf.{name}" for name in ("cluster", "errors", "files", "presets", "wording")
}
_ROOMS = [room for floor in _FLOORS for room in floor]
_READS_SETTINGS = {"pimms_tf.commands", "pimms_tf.actions", "pimms_tf.check", "pimms_tf.study"}
# Inside niftynet_compat, from the top down; what lies loose there may be used by all its rooms.
_COMPAT_ROOMS = [f"niftynet_compat.{room}" for room in ("migration", "runs", "subjects", "settings", "schema")]
# Who may write to the console itself; all others log.
_PRINTS = ("cli", "progress")  # how the names of modules end that print; all are among the commands
# Light packages that hand on a name of a room above, on first use, because it was theirs in the first release.
_HANDED_ON = {"pimms_tf.data": "pimms_tf.pipeline", "pimms_tf.inference": "pimms_tf.serving"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def imported_by(tree: ast.AST, module: str) -> set[str]:
    """The modules that a tree's import statements name; `from package import module` counts as that module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert not any(alias.name == "*" for alias in node.names), f"{module} imports everything"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & set(SOURCES)
            found |= submodules or {node.module}
    return found


def at_import_time(tree: ast.Module) -> ast.Module:
    """The tree without functions and without what only type checkers read."""
    body = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    return ast.Module(body, type_ignores=[])


def room_of(module: str) -> str:
    return next((room for room in _ROOMS if module == room or module.startswith(room + ".")), module)


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] in PACKAGES}


def below(room: str) -> set[str]:
    """The rooms on lower floors, and those on the same floor further right."""
    return set(_ROOMS[_ROOMS.index(room) + 1 :])


def test_every_module_is_in_a_room_that_has_a_floor():
    assert {room_of(module) for module in SOURCES} == set(_ROOMS) | _LOOSE


def test_few_modules_lie_loose():
    assert len([name for name, path in SOURCES.items() if path.parent == ROOT / "pimms_tf"]) <= 8


@pytest.mark.parametrize("module", sorted(set(SOURCES) - _LOOSE))
def test_a_room_imports_only_rooms_below_it(module):
    room = room_of(module)
    allowed = below(room) | {room} | _LOOSE - {"pimms_tf.__main__"}
    if room not in _READS_SETTINGS:
        allowed -= {"niftynet_compat"} - {room}
    if module in _HANDED_ON:
        allowed |= {_HANDED_ON[module]}
    for other in ours(imported_by(TREES[module], module)):
        assert room_of(other) in allowed, f"{module} imports {other}"


@pytest.mark.parametrize("module", sorted(_LOOSE - {"pimms_tf.__main__"}))
def test_what_may_be_used_everywhere_uses_no_room(module):
    assert ours(imported_by(TREES[module], module)) <= _LOOSE


@pytest.mark.parametrize("module", [module for module in SOURCES if module.startswith("niftynet_compat.")])
def test_a_room_of_niftynet_compat_imports_only_rooms_below_it(module):
    rooms = [module.startswith(room) for room in _COMPAT_ROOMS]
    above = _COMPAT_ROOMS[: rooms.index(True)] if any(rooms) else _COMPAT_ROOMS
    for other in ours(imported_by(TREES[module], module)):
        assert not other.startswith(tuple(above)), f"{module} imports {other}"


def test_the_key_of_a_prepared_subject_follows_the_code_that_prepares_it():
    from pimms_tf.pipeline.keys import PREPARING

    needed, waiting = set(), {"pimms_tf.data.loading"}
    while waiting:
        module = waiting.pop()
        needed.add(module)
        waiting |= {other for other in imported_by(TREES[module], module) if room_of(other) == "pimms_tf.data"} - needed
    assert needed == {f"pimms_tf.data.{module}" for module in PREPARING}


def test_no_modules_import_each_other_in_a_circle():
    waiting = {module: ours(imported_by(at_import_time(tree), module)) - {module} for module, tree in TREES.items()}
    while waiting:
        free = {module for module, needed in waiting.items() if not needed & set(waiting)}
        assert free, f"a circle among {', '.join(sorted(waiting))}"
        waiting = {module: needed for module, needed in waiting.items() if module not in free}


@pytest.mark.parametrize("module", SOURCES)
def test_only_the_upper_floors_name_tensorflow(module):
    tree = TREES[module]
    tops = {name.split(".")[0] for name in imported_by(tree, module)} & HEAVY
    tops_at_import = {name.split(".")[0] for name in imported_by(at_import_time(tree), module)} & HEAVY
    if module == "pimms_tf.training.losses" or room_of(module) == "pimms_tf.models":
        assert tops <= {"keras"}
    elif module == "niftynet_compat.runs.checkpoint" or room_of(module) == "pimms_tf.commands":
        assert not tops_at_import  # inside one function
    elif room_of(module) in ("niftynet_compat", "pimms_tf.data", "pimms_tf.evaluation") or module in _LOOSE:
        assert not tops


def test_importing_the_lower_floors_and_the_command_line_loads_no_tensorflow():
    modules = (
        "niftynet_compat",
        "pimms_tf",
        "pimms_tf.data",
        "pimms_tf.evaluation",
        "pimms_tf.commands.demo",
        "pimms_tf.commands.cli",
        "pimms_tf.study.task",
        "pimms_tf.study.study",
        "pimms_tf.study.scoring",
        "pimms_tf.inference.preparation",
        "pimms_tf.study.preparing",
    )
    program = "import sys\n" + "".join(
        f"import {module}\nassert not {HEAVY!r} & set(sys.modules), '{module}'\n" for module in modules
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_reads_no_images_before_it_is_told_to():
    program = (
        "import sys\nimport pimms_tf.commands.cli, pimms_tf.commands.niftynet_cli\n"
        "found = {'scipy', 'nibabel', 'SimpleITK', 'matplotlib'} & set(sys.modules)\nassert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", [name for name in SOURCES if not (name.startswith("pimms_tf.commands.") and name.endswith(_PRINTS))]
)
def test_nothing_below_the_command_line_prints(module):
    calls = [node.func for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)]
    assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}


@pytest.mark.parametrize("module", [name for name, path in SOURCES.items() if path.name == "__init__.py"])
def test_a_packages_public_list_is_what_it_offers(module):
    package = importlib.import_module(module)
    offered = {
        alias.asname or alias.name
        for node in at_import_time(TREES[module]).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert all(hasattr(package, name) for name in getattr(package, "__all__", ()))
    if offered:
        listed = list(package.__all__)
        on_first_use = set(getattr(package, "_WITH_TENSORFLOW", ())) | set(getattr(package, "_OF_SERVING", ()))
        assert len(set(listed)) == len(listed)
        assert set(listed) == offered | on_first_use


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_says_what_it_is_for(module):
    assert ast.get_docstring(TREES[module])


def test_no_code_is_run_from_data():
    for module, tree in TREES.items():
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not names & {"eval", "exec", "__import__"}, module
        assert not imported_by(tree, module) & {"pickle", "shelve", "dill", "yaml"}, module


def test_every_package_is_installed():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(parser["options"]["packages"].split())
    assert {name for name, path in SOURCES.items() if path.name == "__init__.py"} <= listed


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.ini")), ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path):
    assert load_config(path).path == path


@pytest.mark.parametrize(
    "path", [*SOURCES.values(), *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda path: path.stem
)
def test_no_literal_is_unpacked_where_it_stands(path):
    # Written so, `*("a", "b")` only steers the formatter.
    starred = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Starred))
    assert not [node.lineno for node in starred if isinstance(node.value, ast.Tuple | ast.List | ast.Set)]
