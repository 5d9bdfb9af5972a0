"""Chronos' dialect: lenient where Chronos is, plain about what cannot be meant, and the same there and back."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.frameworks.cron.chronos import ONCE_NOW, mirror_fetch, read_job, write_job
from corral.frameworks.cron.launch import build_task, make_want, name_task, read_constraint
from corral.frameworks.cron.spec import (
    Cause,
    Concurrency,
    Config,
    Container,
    Delivery,
    Fetch,
    JobSpec,
    Kind,
    Misfire,
    Network,
    Parameter,
    Progress,
    Run,
    Volume,
)
from corral.frameworks.cron.state import replace
from corral.lib.errors import Invalid
from corral.model.container import NetworkMode
from corral.model.ids import AgentId, FrameworkId, OfferId, WantId
from corral.model.offer import Offer
from corral.model.resources import scalar
from corral.sdk.match import Placement

CONFIG = Config()
WHEN = "R/2026-01-01T00:00:00Z/P1D"
BASE = {"name": "a", "command": "true", "schedule": WHEN}


def spec_of(**fields: Any) -> JobSpec:
    return read_job({**BASE, **fields}).spec


words = st.text("abcXYZ0189-_.", min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
pairs = st.lists(st.tuples(words, texts), max_size=3).map(tuple)
specs = st.builds(
    JobSpec,
    name=words.filter(lambda w: w not in (".", "..")), command=texts.filter(bool), shell=st.booleans(),
    arguments=st.lists(texts, max_size=3).map(tuple), schedule=st.just(WHEN), epsilon=st.none() | st.just("PT1M"),
    time_zone=st.sampled_from(["", "Europe/Paris"]), is_async=st.booleans(), retries=st.integers(0, 9),
    retry_delay_s=st.none() | st.floats(0, 1e6), retry_factor=st.floats(1, 100), owner=texts, owner_name=texts,
    description=texts, disabled=st.booleans(), concurrency=st.sampled_from(Concurrency),
    misfire=st.sampled_from(Misfire), delivery=st.sampled_from(Delivery), high_priority=st.booleans(),
    soft_error=st.booleans(), cpus=st.floats(0.1, 99), mem_mb=st.floats(1, 1e6), disk_mb=st.floats(1, 1e6),
    most_run_s=st.integers(0, 10**6), executor_flags=texts, task_info_data=texts, user=st.just("nobody"),
    fetch=st.lists(st.builds(
        Fetch, uri=words, output_file=words, executable=st.booleans(), cache=st.booleans(), extract=st.booleans()
    ), max_size=2).map(tuple),
    env=pairs, constraints=st.lists(st.tuples(words, st.just("LIKE"), words), max_size=2).map(tuple),
    container=st.none() | st.builds(
        Container, image=words, network=st.sampled_from(["HOST", "BRIDGE", "NONE"]), network_name=texts,
        networks=st.lists(st.builds(
            Network, name=words, protocol=st.sampled_from([None, "IPv4", "IPv6"]), labels=pairs,
            ports=st.just(((("hostPort", "80"), ("containerPort", "8080"), ("protocol", "tcp")),)),
        ), max_size=1).map(tuple),
        volumes=st.lists(st.builds(
            Volume, container_path=words, host_path=st.none() | words, mode=st.sampled_from(["RO", "RW"])
        ), max_size=2).map(tuple),
        parameters=pairs, force_pull_image=st.booleans(),
    ),
    counts_elements=st.booleans(),
    parameters=st.lists(
        st.builds(Parameter, name=st.sampled_from(["day", "Mode_2"]), default=st.none() | texts), max_size=2,
        unique_by=lambda p: p.name,
    ).map(tuple),
    webhook=st.sampled_from(["", "https://example.org/hook"]),
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(spec=specs)
def test_what_is_written_is_read_as_the_same(spec: JobSpec) -> None:
    found = read_job(write_job(spec, Progress(), WHEN, CONFIG))
    assert found.spec == spec
    assert found.unknown == ()


def test_numbers_and_booleans_may_be_texts_and_null_is_absent() -> None:
    found = spec_of(cpus="0.5", disabled="true", retries="4", mem=None, owner=None, shell="False", concurrent="TRUE")
    assert (found.cpus, found.disabled, found.retries, found.mem_mb, found.owner) == (0.5, True, 4, 0.0, "")
    assert found.shell is False
    assert found.concurrency is Concurrency.ALLOW


def test_numbers_and_booleans_in_lists_of_texts_are_taken_as_they_are_written() -> None:
    found = spec_of(
        arguments=["a", 1, True], environmentVariables=[{"name": "A", "value": False}, {"name": "B", "value": 8080}]
    )  # fmt: skip
    assert found.arguments == ("a", "1", "true")
    assert found.env == (("A", "false"), ("B", "8080"))


def test_the_kind_follows_from_the_keys_and_must_suit_the_endpoint() -> None:
    assert read_job({"name": "a", "command": "x"}).spec.schedule == ONCE_NOW
    assert read_job({"name": "a", "command": "x", "schedule": None}).spec.schedule == ONCE_NOW
    assert read_job({"name": "a", "command": "x", "parents": ["b", "a", "b"]}).spec.parents == ("a", "b")
    for body, kind, said in (
        ({"parents": ["b"]}, Kind.SCHEDULED, "endpoint dependency"),
        ({"schedule": WHEN}, Kind.DEPENDENT, "endpoint iso8601"),
        ({"parents": ["b"], "schedule": WHEN}, None, "both schedule and parents"),
        ({"parents": []}, Kind.DEPENDENT, "empty list"),
    ):
        with pytest.raises(Invalid, match=said):
            read_job({"name": "a", "command": "x", **body}, kind)


REFUSED: list[tuple[Mapping[str, Any], str]] = [
    ({"name": ""}, "name must be given"),
    ({"name": "a/b"}, "must be made of letters"),
    ({"name": ".."}, "must be made of letters"),
    ({"name": "x" * 191}, "longer than 190"),
    ({"name": "é"}, "must be made of letters"),
    ({"retries": -1}, "retries is -1; it must be from 0"),
    ({"retries": 1.5}, "retries must be a whole number"),
    ({"retries": True}, "retries must be a number, got true"),
    ({"cpus": 0.0001}, "cpus is 0.0001; it must be 0.001 or more"),
    ({"cpus": "many"}, "cpus must be a number, got the string 'many'"),
    ({"mem": -5}, "mem is -5"),
    ({"disabled": "yes"}, "disabled must be true or false"),
    ({"owner": ["a"]}, "owner must be a string"),
    ({"uris": ["x"], "fetch": [{"uri": "y"}]}, "both uris and fetch"),
    ({"fetch": [{}]}, r"fetch\[0\].uri must be given"),
    ({"environmentVariables": {"A": "b"}}, "environmentVariables must be a list"),
    ({"environmentVariables": [{"name": "A=B", "value": "c"}]}, "holds no ="),
    ({"constraints": [["a", "LIKE"]]}, "attribute, operator and value"),
    ({"container": {"type": "DOCKER"}}, "container.image must be given"),
    ({"container": {"type": "MESOS", "image": "x"}}, "use DOCKER"),
    ({"container": {"image": "x", "network": "USER"}}, "no network is named"),
    ({"container": {"image": "x", "volumes": [{"containerPath": "/d", "external": {}}]}}, "plugins"),
    ({"container": {"image": "x", "volumes": [{}]}}, "containerPath must be given"),
    ({"container": "x"}, "container must be a JSON object"),
    ({"executor": "/bin/mine"}, "no custom executors"),
    ({"epsilon": "soon"}, "no ISO 8601 duration"),
    ({"epsilon": "PT0S"}, "too late to be started"),
    ({"misfirePolicy": "maybe"}, "one of skip, once, all"),
    ({"concurrencyPolicy": "forbid", "concurrent": True}, "leave concurrent out"),
    ({"retryBackoffFactor": 0.5}, "from 1 to 100"),
    ({"webhook": "ftp://x"}, "http or https"),
    ({"parameters": [{"name": "no-name"}]}, "name of one"),
    ({"parameters": [{"name": "a"}, {"name": "a"}]}, "two parameters"),
    ({"command": ""}, "nothing to run"),
    ({"command": "a\0b"}, "NUL"),
    ({"uris": ["a\0b"]}, "NUL"),
    ({"fetch": [{"uri": "a", "output_file": "\0"}]}, "NUL"),
    ({"parameters": [{"name": "a", "default": "\0"}]}, "NUL"),
    ({"lastSuccess": "yesterday"}, "lastSuccess: timestamp 'yesterday'"),
    ({"lastError": "0001-01-01T00:00:00+14:00"}, "lastError: timestamp '0001"),
    ({"epsilon": f"P{'9' * 5000}D"}, "longer than 1000 characters"),
    ({"arguments": [["a"]]}, "arguments must be a list of strings"),
    ({"environmentVariables": [{"name": "A", "value": {}}]}, r"environmentVariables\[0\].value must be a string"),
]


@pytest.mark.parametrize(("fields", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_meant_is_refused_by_name(fields: Mapping[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        spec_of(**fields)


@pytest.mark.parametrize("body", [[], "x", 5, None])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    with pytest.raises(Invalid, match="the body must be a JSON object"):
        read_job(body)


def test_unknown_fields_are_reported_and_do_no_harm() -> None:
    found = read_job({**BASE, "colour": "red", "container": {"image": "x", "size": 3}})
    assert sorted(found.unknown) == ["colour", "container.size"]


def test_a_listing_mirrors_uris_and_fetch_and_shows_every_field_with_its_default() -> None:
    shown = write_job(spec_of(uris=["http://x/y"]), Progress(), WHEN, CONFIG)
    assert mirror_fetch(shown)["fetch"][0]["uri"] == "http://x/y"
    assert shown["fetch"] == []
    assert read_job(mirror_fetch(shown)).spec.fetch == (Fetch(uri="http://x/y"),)
    assert (shown["cpus"], shown["mem"], shown["disk"], shown["runAsUser"]) == (0.1, 128.0, 256.0, "root")
    assert shown["arguments"] == shown["constraints"] == shown["environmentVariables"] == []
    assert {"async", "softError", "lastSuccess", "lastError", "scheduleTimeZone"} <= set(shown)
    assert not {"parents", "container", "epsilon", "misfirePolicy"} & set(shown)
    assert "schedule" not in write_job(
        read_job({"name": "b", "command": "x", "parents": ["a"]}).spec, Progress(), "", CONFIG
    )


# Tasks.


def task(spec: JobSpec, **run: Any) -> Any:
    offer = Offer(
        id=OfferId("o"), framework_id=FrameworkId("f"), agent_id=AgentId("s"), hostname="node1", ip="1.2.3.4", port=1,
        role="*", resources=(scalar("cpus", 1),),
    )  # fmt: skip
    made = Run(id="r", job=spec.name, due=1000, cause=Cause.SCHEDULE, round="r", queued_at=1.0, **run)
    made = replace(made, token=7, task_id=name_task(made, made.attempt, 7, made.arguments))
    placement = Placement(offer=offer, want_id=WantId("w"), resources=offer.resources)
    return build_task(spec, made, placement, CONFIG)


def test_a_shell_command_takes_the_arguments_of_a_run_and_not_those_of_the_job() -> None:
    found = task(spec_of(arguments=["ignored"]), arguments="--x 1")
    assert found.command.value == "true --x 1"
    assert found.command.shell is True


def test_a_command_without_shell_has_all_its_words() -> None:
    found = task(spec_of(shell=False, arguments=["a b", "c"]), arguments="--x 'y z'")
    assert found.command.value == "true"
    assert found.command.arguments == ("true", "a b", "c", "--x", "y z")


def test_a_command_that_is_an_address_is_fetched_and_run() -> None:
    found = task(spec_of(command="http://host/dir/job.sh?v=1"))
    assert found.command.value == "./job.sh"
    assert [(u.value, u.executable, u.extract) for u in found.command.uris] == [
        ("http://host/dir/job.sh?v=1", True, False)
    ]


def test_a_jobs_variables_never_replace_the_frameworks_own() -> None:
    env = [{"name": "CHRONOS_JOB_NAME", "value": "x"}, {"name": "MINE", "value": "y"}]
    found = dict(task(spec_of(environmentVariables=env), attempt=2).command.environment)
    assert found["CHRONOS_JOB_NAME"] == "a"
    assert found["MINE"] == "y"
    assert found["MESOS_TASK_ID"] == found["mesos_task_id"] == "ct:1000:2:a::7"
    assert (found["HOST"], found["CHRONOS_JOB_RUN_ATTEMPT"], found["CORRAL_FENCING_TOKEN"]) == ("node1", "2", "7")
    assert (found["CHRONOS_RESOURCE_CPU"], found["CHRONOS_RESOURCE_MEM"]) == ("0.1", "128.0")


@pytest.mark.parametrize(
    ("arguments", "shown"), [("--x", "--x"), ("a;b", "ab"), ("a b", ""), ("a/b", ""), ("a:b", ""), ("x" * 300, "")]
)
def test_arguments_stand_in_a_tasks_id_only_where_a_name_may_hold_them(arguments: str, shown: str) -> None:
    assert task(spec_of(), arguments=arguments).task_id == f"ct:1000:0:a:{shown}:7"


def test_a_container_brings_its_image_networks_volumes_and_flags() -> None:
    container = {
        "image": "busybox", "network": "USER", "networkInfos": [{"name": "net"}], "forcePullImage": True,
        "volumes": [{"containerPath": "/in", "hostPath": "/out", "mode": "ro"}],
        "parameters": [{"key": "label", "value": "a=b"}],
    }  # fmt: skip
    found = task(spec_of(container=container, runAsUser="nobody")).container
    assert found.docker.image == "busybox"
    assert found.docker.network is NetworkMode.USER
    assert found.docker.force_pull_image is True
    assert [n.name for n in found.network_infos] == ["net"]
    assert (found.volumes[0].host_path, found.volumes[0].mode) == ("/out", "RO")
    assert make_want(spec_of(container=container), CONFIG).runtime == "docker"


def test_a_container_is_its_images_user_unless_another_than_the_servers_is_asked_for() -> None:
    def user(**fields: Any) -> str | None:
        found: str | None = task(spec_of(**fields)).command.user
        return found

    image = {"image": "busybox"}
    assert user(container=image) is None
    assert user(container=image, runAsUser=CONFIG.user) is None, "every listing shows it so"
    assert user(container=image, runAsUser="nobody") == "nobody"
    assert user(runAsUser=CONFIG.user) == CONFIG.user


def test_an_image_may_run_its_own_entrypoint() -> None:
    found = task(read_job({"name": "a", "schedule": WHEN, "container": {"image": "x"}}).spec)
    assert found.command.value is None
    assert found.command.shell is False


def test_constraints_say_no_to_agents_without_the_attribute_unlike_included() -> None:
    from corral.model.constraints import allows

    def takes(operator: str, value: str, found: str | None) -> bool:
        return all(allows(c, found, (), 1, 0) for c in read_constraint(("rack", operator, value)))

    assert takes("EQUALS", "r1", "r1")
    assert not takes("EQUALS", "r1", "r2")
    assert takes("LIKE", "r[12]", "r2")
    assert not takes("LIKE", "r", "r2")
    assert takes("UNLIKE", "r1", "r2")
    assert not takes("unlike", "r1", "r1")
    assert not any(takes(operator, ".*", None) for operator in ("EQUALS", "LIKE", "UNLIKE"))
    with pytest.raises(Invalid, match="use EQUALS, LIKE or UNLIKE"):
        read_constraint(("rack", "NEAR", "r1"))
    with pytest.raises(Invalid, match="no valid regular expression"):
        read_constraint(("rack", "LIKE", "["))
