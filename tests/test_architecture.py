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

# What a room may import of our own besides itself; every room may use errors and files.
_EVERYWHERE = {"pimms_tf", "pimms_tf.errors", "pimms_tf.files", "pimms_tf.presets"}
_MAY_IMPORT = {
    "niftynet_compat": set(),
    "pimms_tf.data": {"pimms_tf.data"},
    "pimms_tf.evaluation": {"pimms_tf.evaluation", "pimms_tf.data"},
    "pimms_tf.models": {"pimms_tf.models"},
    "pimms_tf.training": {"pimms_tf.training", "pimms_tf.models", "pimms_tf.data"},
    "pimms_tf.inference": {"pimms_tf.inference", "pimms_tf.models", "pimms_tf.data"},
}
# The floor where NiftyNet's settings meet our objects: run.py and what was split off it, and the command line.
_MEETING = {
    f"pimms_tf.{module}"
    for module in (
        *("run", "task", "settings", "cohort", "mappings", "trained", "predicting", "inferring", "scoring", "journal"),
        *("import_checkpoint",),
        *("cli", "completion", "niftynet_cli", "migrate_cli", "migrate_text"),
        *("check", "check.dry_run", "check.report", "check.files", "check.labels", "check.windows"),
        *("check.model_folder", "check.evaluation", "check.costs"),
    )
}
# Who may write to the console itself, everybody else logs.
_PRINTS = {"pimms_tf.cli", "pimms_tf.migrate_cli", "pimms_tf.niftynet_cli", "pimms_tf.progress"}
# Modules of light rooms that need TensorFlow and are only imported on first use.
_ON_FIRST_USE = {"pimms_tf.data.pipeline"}


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
    return next((room for room in _MAY_IMPORT if module == room or module.startswith(room + ".")), module)


def ours(modules: set[str]) -> set[str]:
    return {module for module in modules if module.split(".")[0] in PACKAGES}


@pytest.mark.parametrize("module", [module for module in SOURCES if room_of(module) in _MAY_IMPORT])
def test_a_room_imports_only_rooms_below_it(module):
    room = room_of(module)
    for other in ours(imported_by(TREES[module], module)):
        assert room_of(other) in _MAY_IMPORT[room] | {room} | _EVERYWHERE, f"{module} imports {other}"


def test_only_the_meeting_floor_and_niftynet_compat_itself_import_niftynet_compat():
    users = {
        module
        for module, tree in TREES.items()
        if module.startswith("pimms_tf") and any(room_of(m) == "niftynet_compat" for m in imported_by(tree, module))
    }
    assert users <= _MEETING
    assert {"pimms_tf.run", "pimms_tf.cli"} <= users


def test_nothing_below_imports_the_meeting_floor():
    for module, tree in TREES.items():
        if module not in _MEETING | {"pimms_tf.__main__"}:
            assert not imported_by(tree, module) & _MEETING, module


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
    elif module in ("niftynet_compat.checkpoint", "pimms_tf.cli"):
        assert not tops_at_import  # inside one function
    elif room_of(module) in ("niftynet_compat", "pimms_tf.data", "pimms_tf.evaluation"):
        assert not tops or module in _ON_FIRST_USE
    elif module in _EVERYWHERE | {"pimms_tf.demo", "pimms_tf.__main__"}:
        assert not tops


def test_importing_the_lower_floors_and_the_command_line_loads_no_tensorflow():
    modules = (
        *("niftynet_compat", "pimms_tf", "pimms_tf.data", "pimms_tf.evaluation", "pimms_tf.demo", "pimms_tf.cli"),
        *("pimms_tf.task", "pimms_tf.cohort"),
    )
    program = "import sys\n" + "".join(
        f"import {module}\nassert not {HEAVY!r} & set(sys.modules), '{module}'\n" for module in modules
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", [module for module in SOURCES if module not in _PRINTS])
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
        on_first_use = set(getattr(package, "_WITH_TENSORFLOW", ()))
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
