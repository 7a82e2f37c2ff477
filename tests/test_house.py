"""The house rules: who may import whom, how long a module is, what ``--help`` loads, where options live."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hsidenoise"
LINES = 450
HEAVY = ("torch", "matplotlib", "scipy", "rasterio", "h5py", "netCDF4", "pyhdf", "spectral", "tifffile", "jinja2")

# A module imports from lower floors, and from its own floor within its own folder.
FLOORS: dict[int, str] = {
    0: "errors settings progress tiles metrics structure noise factors defects samples scenery gates crops photos"
    " mixing",
    1: "bands cube spectral eigen model device",
    2: "io",
    3: "run rows job outputs engine frontends detectors probe survey summary train finetune patches eigenpatches"
    " validation pipeline recorruption scenepatches ownpatches simulate evaluate profiles demo info report measure"
    " verdict page figures pictures",
    4: "batch api",
    5: "cli __init__ __main__",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}


def modules() -> dict[str, Path]:
    """Dotted names below the package: ``io.envi``, ``denoise``, ``io`` (for its ``__init__``)."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> tuple[set[str], set[str]]:
    """What a module imports anywhere in its code: the package's own modules, and others by their top name."""
    path = MODULES[name]
    folder = list(path.relative_to(PACKAGE).parent.parts)
    own: set[str] = set()
    other: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["hsidenoise", *folder[: len(folder) - (node.level - 1)]] if node.level else []
            stem = [*base, *(node.module.split(".") if node.module else [])]
            targets = [".".join([*stem, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            top, *rest = target.split(".")
            if top != "hsidenoise":
                other.add(top)
            elif rest != ["__version__"]:  # a constant, not code
                own.add(longest_module(rest))
    return own - {name}, other


def longest_module(parts: list[str]) -> str:
    """``["io", "envi", "open_envi"]`` -> ``"io.envi"``."""
    for n in range(len(parts), 0, -1):
        if (name := ".".join(parts[:n])) in MODULES:
            return name
    return "__init__"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_lower_floors_and_its_own_folder(name):
    top = name.split(".")[0]
    assert top in FLOOR, f"{name} stands on no floor: give it one in tests/test_house.py"
    for target in imports(name)[0]:
        other = target.split(".")[0]
        same = FLOOR[other] == FLOOR[top] and MODULES[other].parent == MODULES[top].parent
        inside = other == top and MODULES[top].parent != PACKAGE
        assert FLOOR[other] < FLOOR[top] or inside or same, f"{name} imports {target}, which stands above or beside it"


def test_the_rule_above_sees_relative_and_absolute_imports():
    own, other = imports("cube")
    assert own == {"bands"}
    assert "numpy" in other
    assert "scenery" in imports("demo")[0]  # from . import scenery
    assert "rasterio" in imports("demo")[1]  # inside a function


def test_no_import_cycles():
    graph = {name: imports(name)[0] for name in MODULES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in graph[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(
    ("prefix", "banned"),
    [
        ("io", {"torch"}),
        ("model", {"rasterio", "h5py", "spectral", "tifffile", "netCDF4"}),
        ("errors", {"numpy", "torch", "rich", "typer"}),
        ("settings", {"numpy", "torch", "rich", "typer"}),
    ],
)
def test_libraries_stay_where_they_belong(prefix, banned):
    for name in MODULES:
        if name.split(".")[0] == prefix:
            own, other = imports(name)
            assert not other & banned, f"{name} imports {other & banned}"
            if prefix == "io":
                assert not {"device", "model"} & {target.split(".")[0] for target in own}
            if prefix == "model":
                assert "io" not in {target.split(".")[0] for target in own}


@pytest.mark.parametrize("name", MODULES)
def test_no_module_is_too_long(name):
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= LINES, f"{name} has {lines} lines: split it"


HELP = """
import json, sys
from hsidenoise.cli import main
sys.argv = ["hsidenoise", *sys.argv[1:]]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print(json.dumps([code or 0, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help")])
def test_help_loads_nothing_heavy(arguments):
    done = subprocess.run([sys.executable, "-c", HELP, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert "Usage" in done.stdout
    assert not set(HEAVY) & set(loaded)


def test_importing_the_package_loads_nothing_heavy():
    script = "import json, sys, hsidenoise; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(json.loads(done.stdout))


def parameters(verb: str):
    """The command line's parameters of a verb, by long name with dashes (an argument: by its own name)."""
    import typer

    from hsidenoise.cli import app

    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    found = {}
    for parameter in command.params:
        longs = [name[2:] for name in parameter.opts if name.startswith("--")]
        found[longs[0] if longs else parameter.name] = parameter
    found.pop("help", None)
    return found


def test_the_command_line_of_run_is_its_options():
    from hsidenoise.settings import RunOptions

    fields = {field.name.replace("_", "-"): field for field in dataclasses.fields(RunOptions)}
    found = parameters("run")
    assert set(found) == set(fields) | {"scene", "output", "json", "quiet", "verbose"}
    for name, field in fields.items():
        assert found[name].help == field.metadata["help"]
        assert set(field.metadata["names"]) <= set(found[name].opts)


@pytest.mark.parametrize("verb", ["train", "finetune", "simulate", "evaluate", "info", "batch"])
def test_the_command_line_of_a_verb_has_its_options(verb):
    from hsidenoise import settings

    found = parameters(verb)
    options = settings.ReadOptions if verb == "info" else getattr(settings, f"{verb.capitalize()}Options")
    for field in dataclasses.fields(options):
        assert found[field.name.replace("_", "-")].help == field.metadata["help"]


def test_every_option_explains_itself():
    from hsidenoise import settings

    every = [getattr(settings, name) for name in dir(settings) if name.endswith("Options")]
    assert len(every) == 8
    for options in every:
        for field in dataclasses.fields(options):
            assert field.metadata["help"].endswith("."), f"{options.__name__}.{field.name}"
