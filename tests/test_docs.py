"""The documents say what the program does: links, options, defaults, examples, verbs and exit codes."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from hsidenoise import __version__, errors, settings
from hsidenoise.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The names GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def section(name: str, heading: str) -> str:
    """What follows a heading of level 2 that starts with these words."""
    for part in re.split(r"^## ", text(name), flags=re.MULTILINE)[1:]:
        if part.strip("`").startswith(heading):
            return part
    raise AssertionError(f"{name} has no section {heading}")


def table(part: str) -> list[list[str]]:
    """The cells of all table rows."""
    rows = [line.strip().strip("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(FENCE.sub("", text(name))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{name} links to {target}"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_that_is_named_exists(name: str) -> None:
    known = {"--help", "--version", "--install-completion"}
    known |= {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    programs = r"\b(?:pip|gdal\w*|git|jq|python\S*|pytest|dask (?:scheduler|worker)|kubernetes-validate) .*"
    others = re.compile(programs + r"|\bparallel --\w+|#SBATCH .*")  # options of other programs
    for line in text(name).splitlines():
        unknown = set(OPTION.findall(others.sub("", line))) - known
        assert not unknown, f"{name} names {unknown}"


def examples() -> list[str]:
    found = []
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "sh":
                joined = block.replace("\\\n", " ").splitlines()
                found += [line.strip() for line in joined if line.strip().startswith("hsidenoise ")]
    return sorted(set(found))


@pytest.mark.parametrize("line", examples())
def test_examples_parse_as_typed(line: str) -> None:
    _, verb, *arguments = shlex.split(line.split(" | ")[0], comments=True)
    assert verb in COMMANDS
    COMMANDS[verb].make_context(verb, arguments)


def test_examples_are_found() -> None:
    assert len(examples()) > 10


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_verb_and_option_is_explained(verb: str) -> None:
    part = section("docs/cli.md", f"hsidenoise {verb}")
    for parameter in COMMANDS[verb].params:
        for option in parameter.opts:
            if option.startswith("-") and "help" not in option and option != "-h":
                assert re.search(rf"`{option}[ `]", part), f"docs/cli.md does not explain {option} of {verb}"


@pytest.mark.parametrize("verb", ["run", "batch", "train", "simulate", "evaluate"])
def test_defaults_in_the_tables_are_the_options_own(verb: str) -> None:
    options = getattr(settings, f"{verb.capitalize()}Options")
    rows = {row[0].split("`")[1].split()[0]: row for row in table(section("docs/cli.md", f"hsidenoise {verb}"))[2:]}
    for field in dataclasses.fields(options):
        option = "--" + field.name.replace("_", "-")
        value = field.default
        number = isinstance(value, int | float) and not isinstance(value, bool)
        said = f"`{value:g}`" if number else f"`{value}`" if value else "-"
        assert rows[option][1] == said, f"docs/cli.md: default of {option}"


@pytest.mark.parametrize("name", ["README.md", "docs/cli.md"])
def test_exit_codes_are_those_of_the_errors(name: str) -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.exit_code for kind in kinds if issubclass(kind, errors.HSIDenoiseError)}
    rows = table(section(name, "Exit codes"))[2:]
    assert [int(row[0]) for row in rows] == sorted({0, 3, 130} | codes)


def test_python_in_the_readme_uses_what_there_is() -> None:
    blocks = [block for language, block in FENCE.findall(text("README.md")) if language == "python"]
    assert blocks
    fields = {field.name for field in dataclasses.fields(settings.RunOptions)}
    for node in ast.walk(ast.parse("\n".join(blocks))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "run":
            assert {word.arg for word in node.keywords} <= fields | {"quiet"}


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"^## \[{re.escape(__version__)}\]", text("CHANGELOG.md"), re.MULTILINE)


def test_every_format_that_can_be_written_is_in_the_tables() -> None:
    for name in ("README.md", "docs/formats.md"):
        for word in ("GeoTIFF", "BigTIFF", "COG", "ENVI", "VRT", "JPEG 2000", "bsq", "bil", "bip", "netCDF"):
            assert word in section(name, "Formats"), f"{name}: {word}"
