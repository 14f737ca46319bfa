"""Which file may import which. Imports go one way only; this reads them and holds the table below.

A new file names its room here, or no test will pass: that is the moment to ask where it belongs.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent

FOLDERS = ("web", "control", "work", "media", "nvc", "train", "trial", "bench", "bench/rates", "examples")

# Room: its files, and the rooms that they may import besides their own. A file that is named belongs where it is named,
# the others of a folder to the room that has the folder.
ROOMS: dict[str, tuple[str, str]] = {
    "version": ("version", ""),
    "picture": ("picture", ""),
    "video": ("video media/*", "picture"),
    "clips": ("clips", "picture video"),
    "metrics": ("metrics media.ssim media.bdrate", "picture video"),
    "coding": ("coding", "picture"),
    "nvc": ("nvc/*", "picture coding"),
    "codec": ("codec", "picture video metrics coding nvc"),
    "peers": ("peers", "picture video coding"),
    "jobs": ("jobs fields", ""),
    "store": ("store control.database control.schema control.records control.rows control.lookup control.registry",
              "jobs"),
    "service": ("service web/*", "version"),
    "orchestrator": ("orchestrator control/*", "version picture video clips metrics jobs store service"),
    "worker": ("worker measure work/*", "version picture video clips metrics coding codec jobs service"),
    "client": ("client", "jobs service"),
    "check": ("check trial/*", "jobs service worker"),
    "demo": ("demo", "picture video clips"),
    "examples": ("examples/*", "picture video coding"),
    "train": ("train/*", "picture video metrics coding nvc codec"),
    "bench": ("bench/*", "version picture video clips metrics coding nvc codec jobs service"),
}

# File: what it must never reach, by whatever way, also from within a function. (a: b means all of b's modules.)
NEVER: dict[str, str] = {
    "orchestrator": "torch numba codec coding nvc train measure worker work",
    "control.conductor": "torch numba codec coding nvc train measure worker work",
    "nvc.decode": (
        "nvc.clip nvc.gop nvc.processes nvc.encode nvc.analysis nvc.search nvc.block_search nvc.coarse nvc.quantise"
        " nvc.ratecontrol nvc.scenes nvc.structure nvc.pace nvc.batches nvc.lookahead nvc.trial nvc.worth nvc.temporal"
        " nvc.fading nvc.refine nvc.smooth nvc.distortion nvc.similarity nvc.writing"
        " train codec"
    ),
    "nvc.encode": "train codec",
    "service": "torch numpy jobs store codec nvc",
    "jobs": "torch numpy sqlite3 service store",
    "metrics": "torch codec nvc",
}

# File: what importing it must not load, because its process stays light; functions may import these.
NOT_AT_IMPORT: dict[str, str] = {
    "orchestrator": "torch numba av codec nvc",
    "worker": "torch numba av codec nvc",
    "codec": "matplotlib scipy",
}

# Module: the files that may import it, nobody else.
ONLY: dict[str, set[str]] = {"sqlite3": {"control.database"}, "orchestrator": set(), "worker": set()}

SAYS_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core", "lib", "stuff"}


class Imports(NamedTuple):
    at_import: frozenset[str]  # modules that importing the file imports
    ever: frozenset[str]  # these, and those imported by its functions


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def sources() -> dict[str, Path]:
    """Module name to file, of the whole program."""
    paths = [path for pattern in ("*.py", *(f"{folder}/*.py" for folder in FOLDERS)) for path in ROOT.glob(pattern)]
    return {_name(path): path for path in sorted(paths)}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _modules(node: ast.AST, package: str) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        base = ".".join(filter(None, [package if node.level else "", node.module]))
        inner = {f"{base}.{alias.name}" for alias in node.names}
        return {base} | {module for module in inner if module in sources()}
    return set()


@functools.cache
def imports(module: str) -> Imports:
    tree = ast.parse(sources()[module].read_text(encoding="utf-8"))
    package = module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]
    ever: set[str] = set()
    at_import: set[str] = set()

    def walk(node: ast.AST, runs_at_import: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if _is_type_checking(child):
                continue
            found = _modules(child, package)
            ever.update(found)
            if runs_at_import:
                at_import.update(found)
            walk(child, runs_at_import and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    walk(tree, True)
    return Imports(frozenset(at_import), frozenset(ever))


def room_of(module: str) -> str | None:
    for name in (module, f"{module.split('.')[0]}/*"):
        for room, (files, _) in ROOMS.items():
            if name in files.split():
                return room
    return None


def own(module: str) -> str | None:
    """The file of this program that an imported module is, if it is one."""
    while module:
        if module in sources():
            return module
        module = module.rpartition(".")[0]
    return None


def reached(module: str, at_import: bool) -> dict[str, str]:
    """Every module that can be reached, with the way to it."""
    ways = {module: module}
    todo = [module]
    while todo:
        here = todo.pop()
        for target in imports(here).at_import if at_import else imports(here).ever:
            name = own(target) or target
            if name not in ways:
                ways[name] = f"{ways[here]} > {name}"
                if name in sources():
                    todo.append(name)
    return ways


def within(module: str, names: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names.split())


@pytest.mark.parametrize("module", sources())
def test_each_file_has_a_room_and_imports_only_where_its_room_may(module: str) -> None:
    room = room_of(module)
    assert room is not None, f"{module} has no room: add it to ROOMS in tests/test_architecture.py"
    allowed = {room, *ROOMS[room][1].split()}
    wrong = {
        f"{module} imports {target}, of room {room_of(target)}; room {room} may import {', '.join(sorted(allowed))}"
        for target in map(own, imports(module).ever)
        if target is not None and room_of(target) not in allowed
    }
    assert wrong == set()


def test_rooms_hold_only_files_that_exist() -> None:
    listed = {name for files, _ in ROOMS.values() for name in files.split() if not name.endswith("/*")}
    assert listed - set(sources()) == set()


@pytest.mark.parametrize("module", [module for module in NEVER if module in sources()])
def test_some_files_never_reach_others(module: str) -> None:
    assert {way for name, way in reached(module, at_import=False).items() if within(name, NEVER[module])} == set()


@pytest.mark.parametrize("module", [module for module in NOT_AT_IMPORT if module in sources()])
def test_some_files_are_light_to_import(module: str) -> None:
    ways = reached(module, at_import=True)
    assert {way for name, way in ways.items() if within(name, NOT_AT_IMPORT[module])} == set()


@pytest.mark.parametrize("target", ONLY)
def test_some_modules_have_one_door(target: str) -> None:
    importers = {module for module in sources() if any(within(name, target) for name in imports(module).ever)}
    assert importers - ONLY[target] == set()


def test_no_imports_go_in_a_circle() -> None:
    circles = set()
    for module in sources():
        for target in imports(module).at_import:
            name = own(target)
            if name is not None and name != module:
                way = reached(name, at_import=True).get(module)
                if way is not None and not module.startswith(f"{name}."):
                    circles.add(f"{module} > {way}")
    assert circles == set()


def test_names_say_something_and_shadow_nothing() -> None:
    flat = {module for module in sources() if "." not in module}
    assert {module for module in sources() if module.rpartition(".")[2] in SAYS_NOTHING} == set()
    assert flat & set(sys.stdlib_module_names) == set()
    assert [folder for folder in ("codec", "metrics", "worker", "orchestrator") if (ROOT / folder).is_dir()] == []


def test_the_docs_say_what_each_room_is_for() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(ROOMS)
