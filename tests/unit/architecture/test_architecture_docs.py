"""The docs tell what the code does: every key, route, effect, metric, exit code and stop of the tour is looked up."""

import ast
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast, get_args

import click
import pytest

import corral
from corral.agent import routes as agent_routes
from corral.agent.core import AgentCore
from corral.agent.spec import AgentConfig
from corral.allocator.strategies import STRATEGIES
from corral.cli.main import SECTIONS, cli
from corral.discovery.routes import routes as lb_routes
from corral.frameworks.batch import Config as BatchConfig
from corral.frameworks.batch import views as batch_views
from corral.frameworks.batch.core import BatchCore
from corral.frameworks.batch.routes import routes as batch_routes
from corral.frameworks.cron import Config as CronConfig
from corral.frameworks.cron import CronCore
from corral.frameworks.cron import views as cron_views
from corral.frameworks.cron.dags.routes import dag_routes
from corral.frameworks.cron.routes import routes as cron_routes
from corral.frameworks.cron.views import list_numbers
from corral.frameworks.services.routes import routes as services_routes
from corral.lib import errors
from corral.lib.timings import Timings
from corral.master import routes as master_routes
from corral.master.core import MasterCore
from corral.master.shell import MasterShell
from corral.master.spec import MasterConfig
from corral.mesos.operator import CHANGES, OperatorCall
from corral.mesos.wants import WireWant
from corral.model import calls, events
from corral.model.constraints import Operator
from corral.net.routes import RawRoute, Request, Response, Route
from corral.runtime.core import Asked, Core, Reply
from corral.runtime.election import LEADERSHIP_LOST
from corral.runtime.renewal import Renewal
from corral.runtime.routes import abdication_route, front_routes
from corral.runtime.routes import routes as process_routes
from corral.sdk.feed import Feed
from corral.sdk.metrics import write_metrics
from corral.standalone.config import Config, read_config
from corral.standalone.daemons import STORE_FAILED
from corral.trust.core import TrustCore
from corral.trust.routes import routes as trust_routes
from corral.trust.spec import TrustConfig
from corral.vault.routes import routes as vault_routes
from corral.vault.sealing import Keys

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
        assert rows[key].strip() in (shown, f"{default:.10g}" if isinstance(default, float) else shown), key


def test_every_exit_code_is_documented() -> None:
    page = read("operate/exit-codes.md")
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.CorralError)
    }
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    daemons = {0, STORE_FAILED, LEADERSHIP_LOST}
    assert codes | daemons <= documented
    assert documented <= codes | daemons | {130}


class Answering:
    """A loop that asks its core at once."""

    turns = inputs = waiting = 0
    commit_ms = Timings()
    ready = SimpleNamespace(is_set=lambda: True)

    def __init__(self, core: Core) -> None:
        self._core = core

    async def ask(self, command: Any) -> Any:
        (reply,) = [e for e in self._core.handle(Asked(1, command), 0.0) if isinstance(e, Reply)]
        return reply.value


async def ask_nobody(command: Any) -> Any:
    raise AssertionError("routes are looked at here, not called")


def master() -> list[Route | RawRoute]:
    return master_routes.routes(cast(Any, Answering(MasterCore(MasterConfig(), Random(0)))), MasterShell())


def agent() -> list[Route | RawRoute]:
    core = AgentCore(AgentConfig(hostname="node", runtimes=("docker", "process")), Random(0))
    return agent_routes.routes(cast(Any, Answering(core)), cast(Any, None))


def process() -> list[Route | RawRoute]:
    renewal = Renewal("master", "i", arguments=())
    return [*process_routes(renewal, cast(Any, ask_nobody)), abdication_route(renewal), *front_routes([])]


def trust() -> list[Route | RawRoute]:
    core = TrustCore(TrustConfig())
    return [*trust_routes(cast(Any, Answering(core)), core.state, cast(Any, None))]


ROUTES: dict[str, list[Route | RawRoute]] = {
    "runtime/routes.py": process(),
    "master/routes.py": master(),
    "agent/routes.py": agent(),
    "trust/routes.py": trust(),
    "frameworks/services/routes.py": [*services_routes(ask_nobody)],
    "frameworks/cron/routes.py": [*cron_routes(ask_nobody)],
    "frameworks/cron/dags/routes.py": [*dag_routes(ask_nobody)],
    "discovery/routes.py": [*lb_routes(cast(Any, None))],
    "vault/routes.py": [*vault_routes(ask_nobody, Keys(), cast(Any, None), cast(Any, None))],
    "frameworks/batch/routes.py": [*batch_routes(BatchConfig(), Feed(), ask_nobody)],
}
CHAPTERS = {
    "Processes": "runtime/routes.py",
    "Master": "master/routes.py",
    "Agent": "agent/routes.py",
    "Trust": "trust/routes.py",
    "Vault": "vault/routes.py",
    "Services": "frameworks/services/routes.py",
    "Cron": "frameworks/cron/routes.py",
    "DAGs": "frameworks/cron/dags/routes.py",
    "Balancer": "discovery/routes.py",
    "Batch": "frameworks/batch/routes.py",
}


def test_all_front_doors_are_looked_at_here() -> None:
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("routes.py")} - {"net/routes.py"}
    assert found == set(ROUTES)


def served_routes(door: str) -> set[tuple[str, str]]:
    """Method and path of every route, aliases folded: the page states the prefixes and the suffix once."""
    folded = set()
    for route in ROUTES[door]:
        path = route.path
        for prefix in ("/master", "/slave(1)", "/v1"):
            path = path.removeprefix(prefix)
        folded.add((route.method, path.removesuffix(".json")))
    return folded


def documented_routes(door: str) -> set[tuple[str, str]]:
    found = set()
    for chapter in re.split(r"^## ", read("api/routes.md"), flags=re.MULTILINE)[1:]:
        if CHAPTERS[chapter.split(":")[0].split()[0]] == door:
            found.update(re.findall(r"^\| ([A-Z*]+) \| `([^`]+)` \|", chapter, re.MULTILINE))
    return found


@pytest.mark.parametrize("door", ROUTES)
def test_every_route_is_documented_and_every_documented_route_exists(door: str) -> None:
    assert documented_routes(door) == served_routes(door)


async def numbers(routes: list[Route | RawRoute], path: str) -> str:
    (route,) = [r for r in routes if r.path == path]
    answer = await route.handler(Request(method="GET", path=path))
    assert isinstance(answer, Response)
    return answer.body.decode()


@pytest.mark.parametrize(("chapter", "routes"), [("Master", master()), ("Agent", agent())])
async def test_every_metric_is_documented_and_every_documented_metric_exists(
    chapter: str, routes: list[Route | RawRoute]
) -> None:
    page = next(c for c in read("operate/metrics.md").split("\n## ") if c.startswith(chapter + "\n"))
    told = set(re.findall(r"`([a-z_]+/[a-z0-9_/]+|corral_[a-z0-9_]+)`", page))
    served = set(json.loads(await numbers(routes, "/metrics/snapshot")))
    served |= set(re.findall(r"^([a-z0-9_]+)[ {]", await numbers(routes, "/metrics"), re.MULTILINE))
    assert told == served


def framework_numbers() -> Iterator[tuple[str, str]]:
    """The page's chapter and a name of Prometheus' that is served."""
    cron = CronCore(CronConfig(), Random(0))
    batch = BatchCore(BatchConfig(), Random(0))
    for chapter, found in (
        ("Cron jobs", list_numbers(cron_views.view_metrics(cron.state, 0.0))),
        ("Batch jobs", batch_views.view_metrics(batch.state, 0.0)),
    ):
        for line in write_metrics(found).decode().splitlines():
            if line.startswith("# TYPE "):
                yield chapter, line.split()[2]


def test_the_metrics_of_frameworks_are_documented_and_those_documented_exist() -> None:
    chapters = {name: text for name, _, text in (c.partition("\n") for c in read("operate/metrics.md").split("\n## "))}
    told = {
        (chapter, name)
        for chapter in ("Cron jobs", "Batch jobs")
        for row in re.findall(r"^\| (`corral_[^|]*) \|", chapters[chapter], re.MULTILINE)
        for name in re.findall(r"`(corral_[a-z_]+)`", row)
    }
    assert told == set(framework_numbers())


def effect_classes() -> Iterator[str]:
    for path in [SOURCE / "runtime/core.py", *sorted(SOURCE.rglob("effects.py"))]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(getattr(b, "id", "") == "Effect" for b in node.bases):
                yield node.name


def test_every_effect_is_documented() -> None:
    page = read("api/effects.md")
    assert set(re.findall(r"^\| `([A-Za-z]+)` \|", page, re.MULTILINE)) == set(effect_classes())


def test_every_command_is_documented() -> None:
    page = read("operate/cli.md")
    names = [name for commands in SECTIONS.values() for name in commands]
    assert [name for name in names if f"`corral {name}" not in page] == []


def stops() -> list[tuple[str, str]]:
    return re.findall(r"`([a-z_/]+\.py):([A-Za-z_.]+)`", read("tour.md"))


def test_the_tour_has_its_stops() -> None:
    visited = {file.split("/")[0] for file, _ in stops()}
    assert len(stops()) >= 25
    assert visited >= {
        "net",
        "runtime",
        "frameworks",
        "sdk",
        "mesos",
        "master",
        "allocator",
        "agent",
        "docker",
        "process",
    }
    assert {"sdk/local.py", "sdk/http.py"} <= {file for file, _ in stops()}


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


def code_lines() -> Iterator[tuple[str, str]]:
    """What a reader would type: indented lines of pages, and what stands in backticks."""
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"^ {4,}(\S.*)$|`([^`\n]+)`", text, re.MULTILINE):
            yield str(page.relative_to(ROOT)), "".join(line)


def test_every_make_verb_in_the_docs_exists() -> None:
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    told = {(page, found[1]) for page, line in code_lines() if (found := re.match(r"make ([a-z]+)", line))}
    assert told
    assert {(page, verb) for page, verb in told if verb not in verbs} == set()


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and its own words; groups are followed."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and re.fullmatch("[a-z]+", words[0]):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    return command, words


def test_every_command_line_in_the_docs_is_one_that_exists() -> None:
    wrong = []
    for page, line in code_lines():
        found = re.match(r"(?:eval \"\$\(|\S*/bin/)?corral ([^#]*)", line)
        if found is None or "..." in line:
            continue
        words = shlex.split(re.sub(r"[\[\]();\"]", " ", re.split(r"\[?-- ", found[1])[0]).replace("'", " "))
        try:
            command, rest = command_of(words)
        except AssertionError as error:
            wrong.append(f"{page}: {line}: {error}")
            continue
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        for word in rest:
            option = word.partition("=")[0]
            short = re.fullmatch("-[a-z]{2,}", option) is not None and all(f"-{c}" in known for c in option[1:])
            if option.startswith("-") and option not in known and not short:
                wrong.append(f"{page}: {line}: {option}")
    assert wrong == []


def said_by_corral() -> str:
    """All texts in the code, one after the other; parts of an f-string stand together."""
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                found.append("".join(str(part) for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found).lower()


def test_what_troubleshoot_quotes_is_said_by_the_code() -> None:
    page = read("operate/troubleshoot.md")
    quoted = []
    for head in ("the failure says", "it says"):
        table = page.split(f"| {head} | cause and cure |\n")[1].split("\n\n")[0]
        quoted += re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    words = said_by_corral()
    pieces = {piece.strip(" :;.,").lower() for text in quoted for piece in re.split(r"\.\.\.|\d+ s\b|\bN\b", text)}
    assert {piece for piece in pieces if piece and piece not in words} == set()


def test_json_in_the_docs_is_json() -> None:
    for page in DOCS.rglob("*.md"):
        for block in re.findall(r"^```json\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            json.loads(block)


def test_the_configuration_file_in_the_docs_is_taken(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", read("operate/configure.md"), re.MULTILINE | re.DOTALL)
    file = tmp_path / "corral.toml"
    file.write_text(block, encoding="utf-8")
    _, origins = read_config(str(file), (), {})
    named = {f"{section}.{key}" for section, table in tomllib.loads(block).items() for key in table}
    assert {key for key, origin in origins.items() if origin == str(file)} == named


def ticked(name: str) -> set[str]:
    """All words that stand in backticks on a page."""
    return {word for text in re.findall(r"`([^`\n]+)`", read(name)) for word in re.findall(r"[A-Za-z_]+", text)}


@pytest.mark.parametrize(
    ("dialect", "page"),
    [
        ("services/marathon.py", "frameworks/services.md"),
        ("cron/chronos.py", "frameworks/cron.md"),
        ("cron/dags/dialect.py", "frameworks/dags.md"),
    ],
)
def test_every_field_of_a_dialect_that_is_read_is_documented(dialect: str, page: str) -> None:
    tree = ast.parse((SOURCE / "frameworks" / dialect).read_text(encoding="utf-8"))
    readers = {
        "any", "choice", "flag", "has", "items", "list", "number", "object", "objects", "pairs", "text", "text_map",
        "text_or_none", "texts", "whole",
    }  # fmt: skip
    read_fields = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in readers
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    tables = [n for n in ast.walk(tree) if isinstance(n, ast.Dict) and len(n.keys) > 5]
    read_fields |= {k.value for n in tables for k in n.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)}
    missing = {str(f) for f in read_fields} - ticked(page)
    assert missing == set()


def test_every_call_event_and_word_of_mesos_is_documented() -> None:
    page = read("api/mesos.md")
    tags = {kind.__struct_config__.tag for kind in (*get_args(calls.Call), *get_args(events.Event))} - {"IGNORED"}
    words = {str(tag) for tag in tags} | {call.value for call in OperatorCall} | set(CHANGES)
    assert {word for word in words if re.search(rf"\b{word}\b", page) is None} == set()
    wanted = {*WireWant.__struct_fields__, *STRATEGIES, *(operator.value for operator in Operator)}
    assert {word for word in wanted if f"`{word}`" not in page} == set()


def test_the_pages_of_states_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("gen_states", ROOT / "scripts/gen_states.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    written = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "states").glob("*.md")}
    assert written == generator.pages(), "run .venv/bin/python scripts/gen_states.py"


def test_the_layers_in_the_docs_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [
        {name.strip().removeprefix("corral.") for name in row.split("|")} for row in contracts["contracts"][0]["layers"]
    ]
    chapter = read("architecture.md").split("## Layers")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \d+ \| (.*) \|$", chapter, re.MULTILINE)
    assert [set(re.findall(r"`([a-z]+)[`.]", row)) for row in rows] == layers


def test_changelog_fragments_are_named_by_slug_and_kind() -> None:
    names = [p.name for p in (ROOT / "changelog.d").iterdir()]
    assert names, "a change has a fragment"
    assert [n for n in names if not re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md", n)] == []
