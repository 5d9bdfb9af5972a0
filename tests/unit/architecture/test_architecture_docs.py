"""The docs tell what the code does: every key, route, effect, exit code and stop of the tour is looked up."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import corral
from corral.cli.main import SECTIONS
from corral.lib import errors
from corral.standalone.config import Config

SOURCE = Path(corral.__file__).parent
ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_config_key_is_documented_with_its_default() -> None:
    page = read("operate/configure.md")
    config = Config()
    rows = dict(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| `?([^|`]*)`? \|", page, re.MULTILINE))
    wanted = {
        f"{section.name}.{item.name}": getattr(getattr(config, section.name), item.name)
        for section in fields(config)
        for item in fields(getattr(config, section.name))
    }
    assert set(rows) == set(wanted)
    for key, default in wanted.items():
        shown = ",".join(default) if isinstance(default, tuple) else str(default)
        if isinstance(default, bool):
            shown = shown.lower()
        if default is None:
            shown = ""
        assert rows[key].strip() in (shown, f"{default:g}" if isinstance(default, float) else shown), key


def test_every_exit_code_is_documented() -> None:
    page = read("operate/exit-codes.md")
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.CorralError)
    }
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert codes <= documented


def declared_routes() -> Iterator[tuple[str, str]]:
    """(method, path) of every `Route(...)` and `RawRoute(...)` with literal arguments, and of tables of such pairs."""
    for path in sorted(SOURCE.rglob("routes.py")):
        if path.parent.name == "net":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found = re.fullmatch(r"/[A-Za-z0-9_{}*/().:-]*", node.value)
                if found and len(node.value) > 1:
                    yield str(path.relative_to(SOURCE)), node.value


def test_every_route_is_documented() -> None:
    page = read("api/routes.md")
    missing = sorted({f"{where}: {path}" for where, path in declared_routes() if f"`{path}`" not in page})
    assert missing == []


def effect_classes() -> Iterator[str]:
    for path in [SOURCE / "runtime/core.py", *sorted(SOURCE.rglob("effects.py"))]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(getattr(b, "id", "") == "Effect" for b in node.bases):
                yield node.name


def test_every_effect_is_documented() -> None:
    page = read("api/effects.md")
    assert [name for name in effect_classes() if f"`{name}`" not in page] == []


def test_every_command_is_documented() -> None:
    page = read("operate/cli.md")
    names = [name for commands in SECTIONS.values() for name in commands]
    assert [name for name in names if f"`corral {name}" not in page] == []


def stops() -> list[tuple[str, str]]:
    return re.findall(r"`([a-z_/]+\.py):([A-Za-z_.]+)`", read("tour.md"))


def test_the_tour_has_its_stops() -> None:
    assert len(stops()) >= 20


@pytest.mark.parametrize(("file", "name"), stops() if (DOCS / "tour.md").exists() else [])
def test_each_stop_of_the_tour_exists(file: str, name: str) -> None:
    tree: ast.AST = ast.parse((SOURCE / file).read_text(encoding="utf-8"))
    for part in name.split("."):
        tree = next(
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == part
        )


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_every_page_is_reachable_from_the_index() -> None:
    seen: set[Path] = set()
    queue = [DOCS / "index.md"]
    while queue:
        page = queue.pop().resolve()
        if page in seen or not page.is_file():
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text(encoding="utf-8")):
            queue.append(page.parent / target)
        for folder in re.findall(r"\]\(([a-z-]+/)\)", page.read_text(encoding="utf-8")):
            queue.extend((page.parent / folder).glob("*.md"))
    assert sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if p.resolve() not in seen) == []


def test_changelog_fragments_are_named_by_slug_and_kind() -> None:
    names = [p.name for p in (ROOT / "changelog.d").iterdir()]
    assert names, "a change has a fragment"
    assert [n for n in names if not re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md", n)] == []
