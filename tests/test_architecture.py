"""Which package may import which.  Imports go one way only; this reads every import there is, and holds the table
below.

`python tests/test_architecture.py` prints the table as docs/architecture.md shows it.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Package (or single module, for programs and ways in): what it may import besides itself, and what it holds.  In the
# order of the imports: each may only name packages above it.
PACKAGES: dict[str, tuple[str, str]] = {
    "video": ("", "pictures and clips: types, containers, raw formats, stills, the clip library"),
    "measures": ("video", "SSIM, MS-SSIM, VMAF, XPSNR, BD-rate"),
    "metrics": ("video measures", "program: what is measured, with its definitions"),
    "coding": ("video", "the interface of every codec; the codecs by name"),
    "peers": ("video coding metrics", "x264, x265, SVT-AV1, VP9, libaom, rav1e, VVenC"),
    "nvc.machine": ("", "threads, memory, vector instructions"),
    "nvc.entropy": ("", "the range coder"),
    "nvc.motion": ("video nvc.machine nvc.entropy", "motion vectors and their syntax; prediction"),
    "nvc.stream": ("video coding nvc.motion", "the syntax of a stream; reading and writing it"),
    "nvc.loop_filter": ("video nvc.machine nvc.entropy", "the filter of decoded pictures"),
    "nvc.network": ("video nvc.entropy nvc.stream nvc.loop_filter", "the networks, exact in integers; models by name"),
    "nvc.tiles": ("video nvc.entropy nvc.network", "tiles: copied, coded by samples, coded by the networks"),
    "nvc.decoder": ("video nvc.machine nvc.entropy nvc.motion nvc.stream nvc.loop_filter nvc.network nvc.tiles",
                   "the decoder: everything it imports is normative"),
    "nvc.encoder.search": ("video nvc.machine nvc.entropy nvc.motion", "search for motion"),
    "nvc.encoder.sources": ("video nvc.machine nvc.motion nvc.stream nvc.tiles nvc.encoder.search",
                            "scene cuts, mini-GOPs, propagation, temporal filter"),
    "nvc.encoder.quantisation": ("nvc.network", "choice of symbols, refinement"),
    "nvc.encoder": ("video coding nvc.machine nvc.entropy nvc.motion nvc.stream nvc.loop_filter nvc.network nvc.tiles "
                    "nvc.decoder nvc.encoder.search nvc.encoder.sources nvc.encoder.quantisation",
                    "the encoder, rate control"),
    "nvc": ("video coding metrics nvc.machine nvc.stream nvc.network nvc.decoder nvc.encoder",
            "nvc as a codec; compilation ahead of use"),
    "service.runtime": ("", "settings, logs, metrics, systemd, version"),
    "codec": ("service.runtime video coding metrics nvc nvc.machine nvc.stream nvc.network",
              "program: the codec's command line"),
    "service.s3": ("", "bytes in S3 buckets"),
    "service.http": ("service.runtime", "server, routes, keys, client"),
    "service.jobs": ("", "an experiment's fields, the states of its runs"),
    "service.storage": ("service.s3 service.jobs", "the database; bytes under their SHA-256"),
    "service.clips": ("service.s3 video service.http service.jobs service.storage", "clips that experiments name"),
    "service.results": ("measures metrics service.jobs service.storage", "curves, BD-rates, plots, formats"),
    "service.scheduling": ("service.runtime service.http service.jobs service.storage",
                           "placement, leases, dispatch"),
    "service.api": ("service.s3 video measures service.runtime service.http service.jobs service.storage service.clips "
                    "service.results service.scheduling", "the orchestrator's endpoints and upkeep"),
    "service.processes": ("video metrics coding service.runtime",
                          "a worker's codec process: started, supervised; how a run is measured in it"),
    "service.runs": ("service.s3 service.runtime service.http service.jobs service.processes",
                     "a run at its worker: from the dispatch to the delivered result"),
    "service.ray": ("service.processes service.runs", "workers whose codec processes are on a Ray cluster"),
    "orchestrator": ("video service.runtime service.s3 service.http service.storage service.clips service.results "
                     "service.scheduling service.api", "program: accepts experiments, hands them to workers"),
    "worker": ("service.runtime service.http service.jobs service.processes service.runs service.ray service.s3",
               "program: runs codecs"),
    "service.reports": ("service.http", "sets of clips; the tables of papers; files up and down"),
    "client": ("service.http service.jobs service.reports", "program: submit, watch, get, list"),
    "deployment_check": ("service.http service.jobs", "traffic for a deployment, and the verdict on what was seen"),
    "check": ("deployment_check service.processes", "program: tries a deployment"),
    "demo": ("video", "program: `make demo`"),
    "systemd": ("", "program: hashes of what an installation got"),
    "examples": ("video coding", "codecs of a user's own, to start from"),
    "train": ("video coding codec nvc.entropy nvc.motion nvc.stream nvc.loop_filter nvc.network nvc.decoder "
              "nvc.encoder.search nvc.encoder.sources nvc.encoder", "makes the weights"),
    "bench.rates": ("video metrics coding codec", "rate-distortion points, tables, plots"),
    "bench.others": ("", "other systems, to compare with"),
    "bench": ("video measures metrics coding peers codec nvc.motion nvc.network nvc.encoder service.runtime "
              "service.http service.jobs service.storage service.scheduling deployment_check bench.rates",
              "makes the numbers, into bench/results/"),
    "bench.readme": ("video coding codec metrics bench", "makes the README's pictures"),
}

# Module: what it must never reach, by whatever way.  (a: b means all of b's modules.)
NEVER: dict[str, str] = {
    "orchestrator": "torch numba codec coding nvc train worker service.runs service.processes",
    "service.scheduling.scheduler": "torch numba codec coding nvc train worker service.runs service.processes",
    "nvc.decoder": "nvc.encoder nvc.stream.writing nvc.codec train codec",
    "nvc.encoder.encode": "train codec",
    "service.http.server": "torch numpy service.jobs service.storage codec nvc",
    "service.jobs.states": "torch numpy sqlite3 service.http service.storage",
    "metrics": "torch codec nvc",
}

# Module: what importing it must not load, because its process stays light; functions may import these.
NOT_AT_IMPORT: dict[str, str] = {
    "orchestrator": "torch numba av codec nvc",
    "worker": "torch numba av codec nvc numpy",
    "codec": "matplotlib scipy",
}

# Module: the modules that may import it, nobody else.
ONLY: dict[str, set[str]] = {"sqlite3": {"service.storage.database"}, "orchestrator": set(), "worker": set()}

SAYS_NOTHING = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core", "lib", "stuff"}
NOT_THE_PROGRAM = ("tests", "docs", ".venv", "build", "dist")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def sources() -> dict[str, Path]:
    """Module name to file, of the whole program."""
    paths = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in NOT_THE_PROGRAM]
    return {_name(path): path for path in sorted(paths)}


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Every module that a module imports: at its import, in its functions, for types only."""
    return _imports(module, at_import_only=False)


@functools.cache
def imports_at_import(module: str) -> frozenset[str]:
    """The modules that importing a module imports."""
    return _imports(module, at_import_only=True)


def _imports(module: str, at_import_only: bool) -> frozenset[str]:
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                inner = {f"{child.module}.{alias.name}" for alias in child.names}
                found.update(inner & set(sources()) or {child.module})
            elif not (at_import_only and _is_not_run(child)):
                walk(child)

    walk(ast.parse(sources()[module].read_text(encoding="utf-8")))
    return frozenset(found - {module})


def _is_not_run(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
        isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")


def own(name: str) -> str | None:
    """The module of this program that an imported name is, if it is one."""
    while name:
        if name in sources():
            return name
        name = name.rpartition(".")[0]
    return None


def package_of(module: str) -> str | None:
    """The row of the table that a module belongs to: the longest name that it begins with."""
    name = module
    while name:
        if name in PACKAGES:
            return name
        name = name.rpartition(".")[0]
    return None


def reached(module: str, at_import: bool) -> dict[str, str]:
    """Every module that can be reached, with the way to it."""
    ways = {module: module}
    todo = [module]
    while todo:
        here = todo.pop()
        for target in imports_at_import(here) if at_import else imports(here):
            name = own(target) or target
            if name not in ways:
                ways[name] = f"{ways[here]} > {name}"
                if name in sources():
                    todo.append(name)
    return ways


def within(module: str, names: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names.split())


def table() -> str:
    """The packages as docs/architecture.md shows them."""
    width = max(map(len, PACKAGES))
    return "\n".join(f"{name:{width}}  {holds}\n{'':{width}}    <- {below or '(nothing of ours)'}"
                     for name, (below, holds) in PACKAGES.items())


@pytest.mark.parametrize("module", sources())
def test_each_module_imports_only_what_its_package_may(module: str) -> None:
    if sources()[module].name == "__init__.py" and not imports(module):
        return  # it only says what its folder holds
    package = package_of(module)
    assert package is not None, f"{module} belongs to no package: add it to PACKAGES in tests/test_architecture.py"
    allowed = {package, *PACKAGES[package][0].split()}
    wrong = {f"{module} imports {target} of {package_of(target)}; {package} may import {', '.join(sorted(allowed))}"
             for target in map(own, imports(module)) if target is not None and package_of(target) not in allowed}
    assert wrong == set()


def test_packages_import_only_packages_above_them() -> None:
    names = list(PACKAGES)
    assert {f"{name} names {below}" for name, (allowed, _) in PACKAGES.items() for below in allowed.split()
            if names.index(below) >= names.index(name)} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_each_allowed_import_is_made(package: str) -> None:
    used = {package_of(target) for module in sources() if package_of(module) == package
            for target in map(own, imports(module)) if target is not None}
    assert set(PACKAGES[package][0].split()) - used == set()


@pytest.mark.parametrize("module", NEVER)
def test_some_modules_never_reach_others(module: str) -> None:
    assert {way for name, way in reached(module, at_import=False).items() if within(name, NEVER[module])} == set()


@pytest.mark.parametrize("module", NOT_AT_IMPORT)
def test_some_modules_are_light_to_import(module: str) -> None:
    ways = reached(module, at_import=True)
    assert {way for name, way in ways.items() if within(name, NOT_AT_IMPORT[module])} == set()


@pytest.mark.parametrize("target", ONLY)
def test_some_modules_are_imported_by_one_module_only(target: str) -> None:
    importers = {module for module in sources() if any(within(name, target) for name in imports(module))}
    assert importers - ONLY[target] == set()


def test_no_imports_go_in_a_circle() -> None:
    circles = {f"{module} > {reached(name, at_import=False)[module]}" for module in sources()
               for name in map(own, imports(module))
               if name is not None and name != module and module in reached(name, at_import=False)}
    assert circles == set()


def test_only_programs_lie_at_the_top() -> None:
    assert {path.name for path in ROOT.glob("*.py") if "__main__" not in path.read_text(encoding="utf-8")} == set()


def test_folders_hold_few_enough_files_to_be_seen_at_once() -> None:
    folders = {path.parent for path in sources().values()}
    assert {str(folder.relative_to(ROOT)): count for folder in folders
            if (count := len([*folder.glob("*.py")]) - (folder / "__init__.py").exists()) > 16} == {}


def test_names_say_something_and_shadow_nothing() -> None:
    flat = {module for module in sources() if "." not in module}
    assert {module for module in sources() if module.rpartition(".")[2] in SAYS_NOTHING} == set()
    assert flat & set(sys.stdlib_module_names) == set()
    assert [folder for folder in ("codec", "metrics", "worker", "orchestrator") if (ROOT / folder).is_dir()] == []


def test_the_docs_show_the_packages() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- packages -->\n```\n(.*?)\n```", text, re.DOTALL)
    assert shown is not None
    assert shown[1] == table()


if __name__ == "__main__":
    print(table())
