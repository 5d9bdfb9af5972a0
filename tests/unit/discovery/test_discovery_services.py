"""Labels of marathon-lb to what a balancer serves, and that to HAProxy's configuration."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from corral.discovery.haproxy import PIECES, Settings, TemplateError, blame, fill, render
from corral.discovery.registry import App, Check, Port
from corral.discovery.services import TEMPLATES, Mode, Services, make_services
from corral.discovery.slots import place

Make = Callable[..., App]
GROUP = {"HAPROXY_GROUP": "external"}


def serve(*apps: App, groups: tuple[str, ...] = ("external",), **options: Any) -> Services:
    return make_services({app.id: app for app in apps}, groups, **options)


def config(*apps: App, settings: Settings | None = None) -> str:
    found = serve(*apps)
    assert found.errors == {}
    return render(found.services, place(found.services, {}), settings or Settings(socket="s"))


@pytest.mark.parametrize(
    ("labels", "groups", "served"),
    [
        ({}, ("*",), False),
        ({"HAPROXY_GROUP": "external"}, ("external",), True),
        ({"HAPROXY_GROUP": "internal, external"}, ("external",), True),
        ({"HAPROXY_GROUP": "internal"}, ("external",), False),
        ({"HAPROXY_GROUP": "internal"}, ("*",), True),
        ({"HAPROXY_0_GROUP": "external"}, ("external",), True),
        ({"HAPROXY_GROUP": "external", "HAPROXY_0_GROUP": "internal"}, ("external",), False),
        ({"HAPROXY_GROUP": "external", "HAPROXY_0_ENABLED": "false"}, ("external",), False),
    ],
)
def test_a_balancer_serves_the_apps_of_its_groups(
    app: Make, labels: dict[str, str], groups: tuple[str, ...], served: bool
) -> None:
    assert bool(serve(app(labels=labels), groups=groups).services) is served


@pytest.mark.parametrize(
    ("labels", "checks", "mode"),
    [
        ({}, (), Mode.TCP),
        ({"HAPROXY_0_VHOST": "a.test"}, (), Mode.HTTP),
        ({}, (Check(protocol="HTTP", path="/up"),), Mode.HTTP),
        ({}, (Check(protocol="TCP"),), Mode.TCP),
        ({"HAPROXY_0_MODE": "tcp"}, (Check(protocol="HTTP"),), Mode.TCP),
        ({"HAPROXY_0_MODE": "http"}, (), Mode.HTTP),
    ],
)
def test_the_mode_follows_from_host_and_check_unless_it_is_said(
    app: Make, labels: dict[str, str], checks: tuple[Check, ...], mode: Mode
) -> None:
    (service,) = serve(app(labels={**GROUP, **labels}, checks=checks)).services
    assert service.mode is mode


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("VHOST", "a test"), ("VHOST", "a.test\nglobal"), ("PATH", "no-slash"), ("PATH", "/a b"), ("PORT", "http"),
        ("PORT", "70000"), ("MODE", "udp"), ("STICKY", "maybe"), ("BALANCE", "round robin"), ("AUTH", "realm"),
        ("BIND_OPTIONS", "a\nb"), ("BACKEND_NETWORK_ALLOWED_ACL", "10.0.0.0/64"), ("SSL_CERT", "a b"),
        ("HTTP_BACKEND_REDIR", 'x"'),
    ],
)  # fmt: skip
def test_a_label_that_makes_no_sense_costs_its_app_its_place_and_no_other(app: Make, label: str, value: str) -> None:
    bad = app("/bad", labels={**GROUP, f"HAPROXY_0_{label}": value}, ports=(Port(index=0, service_port=9),))
    found = serve(bad, app("/good", labels=GROUP))
    assert [s.app for s in found.services] == ["/good"]
    assert f"HAPROXY_0_{label} of app /bad" in found.errors["/bad"]


def test_two_apps_of_one_service_port_are_told_who_has_it(app: Make) -> None:
    found = serve(app("/a", labels=GROUP), app("/b", labels=GROUP))
    assert [s.app for s in found.services] == ["/a"]
    assert "which app /a has" in found.errors["/b"]


def test_a_port_that_the_balancer_needs_itself_is_refused(app: Make) -> None:
    found = serve(app(labels={**GROUP, "HAPROXY_0_PORT": "80"}), reserved={80: "http"})
    assert "has for http" in found.errors["/shop/web"]


def test_labels_that_mean_nothing_are_told(app: Make) -> None:
    labels = {**GROUP, "HAPROXY_0_NONSENSE": "1", "HAPROXY_7_VHOST": "x", "HAPROXY_0_VHOST": "a.test", "OTHER": "1"}
    assert serve(app(labels=labels)).ignored == {"/shop/web": ("HAPROXY_0_NONSENSE", "HAPROXY_7_VHOST")}


def test_blue_and_green_share_the_port_of_the_older_one(app: Make) -> None:
    both = {**GROUP, "HAPROXY_DEPLOYMENT_GROUP": "web"}
    blue = app("/web-blue", labels={**both, "HAPROXY_DEPLOYMENT_STARTED_AT": "2026-01-01"}, weight=200)
    green = app(
        "/web-green", labels={**both, "HAPROXY_DEPLOYMENT_STARTED_AT": "2026-02-01", "HAPROXY_0_PORT": "10001"},
        weight=50, count=1,
    )  # fmt: skip
    (service,) = serve(green, blue).services
    assert (service.port, service.apps) == (10000, ("/web-blue", "/web-green"))
    assert sorted(s.weight for s in service.servers) == [50, 200, 200]


def test_only_ready_instances_are_up_and_one_that_leaves_is_known_as_such(app: Make) -> None:
    made = app(count=3, ready=2, labels=GROUP)
    leaving = replace(made.instances[1], ready=False, draining=True)
    (service,) = serve(replace(made, instances=(made.instances[0], leaving, made.instances[2]))).services
    assert [(s.up, s.leaving) for s in service.servers] == [(True, False), (False, True), (False, False)]


def test_a_udp_port_is_left_out(app: Make) -> None:
    assert serve(app(labels=GROUP, ports=(Port(index=0, service_port=53, protocol="udp"),))).services == ()


def test_virtual_hosts_are_tried_by_priority_then_the_longer_path(app: Make) -> None:
    def one(name: str, port: int, **labels: str) -> App:
        made = {f"HAPROXY_0_{key}": value for key, value in labels.items()}
        return app(name, ports=(Port(index=0, service_port=port),), labels={**GROUP, **made})

    text = config(
        one("/a", 1001, VHOST="x.test"), one("/b", 1002, VHOST="x.test", PATH="/api"),
        one("/c", 1003, VHOST="*.x.test", PATH="/api/v2"), one("/d", 1004, VHOST="y.test", BACKEND_WEIGHT="5"),
    )  # fmt: skip
    used = [line.split()[1] for line in text.splitlines() if "use_backend" in line and " if host_" in line]
    assert used == ["d_1004", "c_1003", "b_1002", "a_1001"]
    assert "acl host_c_1003 req.hdr(host),field(1,:) -i -m end .x.test" in text


def test_what_labels_ask_for_stands_in_the_configuration(app: Make) -> None:
    labels = {
        "VHOST": "a.test,b.test", "STICKY": "true", "REDIRECT_TO_HTTPS": "true", "USE_HSTS": "true",
        "BALANCE": "leastconn", "AUTH": "my realm:bob:$6$x", "BACKEND_NETWORK_ALLOWED_ACL": "10.0.0.0/8 127.0.0.1",
        "HTTP_BACKEND_PROXYPASS_PATH": "/app", "HTTP_BACKEND_REVPROXY_PATH": "/app", "HTTP_BACKEND_REDIR": "/start",
        "BIND_ADDR": "127.0.0.1", "BIND_OPTIONS": "accept-proxy",
    }  # fmt: skip
    text = config(app(labels={**GROUP, **{f"HAPROXY_0_{k}": v for k, v in labels.items()}}))
    for wanted in (
        "bind 127.0.0.1:10000 accept-proxy", "balance leastconn", "cookie corral_shop_web_10000 insert",
        "http-request redirect scheme https code 301 if host_shop_web_10000", "Strict-Transport-Security",
        "user bob password $6$x", 'http-request auth realm "my realm"', "src 10.0.0.0/8 127.0.0.1",
        "regsub(^/app/?,/)", 'Location "^(https?://[^/]+)?(/.*)$" "\\1/app\\2"', "redirect location /start",
        "-i a.test b.test", "server s1 10.0.0.1:31000 weight 100 cookie s1",
    ):  # fmt: skip
        assert wanted in text, wanted


def test_a_label_or_a_file_replaces_a_piece_of_the_configuration(app: Make) -> None:
    labels = {**GROUP, "HAPROXY_0_BACKEND_HEAD": "backend {backend}\n  balance first\n  timeout server 9s"}
    settings = Settings(socket="s", templates={"FRONTEND_BACKEND_GLUE": "  default_backend {backend}\n"})
    text = config(app(labels=labels), settings=settings)
    assert "  balance first\n  timeout server 9s\n" in text
    assert "  default_backend shop_web_10000\n" in text


def test_apps_bring_no_pieces_where_that_is_not_allowed(app: Make) -> None:
    found = serve(app(labels={**GROUP, "HAPROXY_0_BACKEND_HEAD": "x"}), templates=False)
    assert "takes no templates" in found.errors["/shop/web"]


@pytest.mark.parametrize("text", ["{unknown}", "{backend", "{backend!r}", "}"])
def test_a_piece_that_cannot_be_filled_in_names_its_app(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        fill(text, {"backend": "b"}, "BACKEND_HEAD", "/a")
    assert caught.value.app == "/a"


def test_every_piece_can_be_replaced_by_a_label() -> None:
    assert set(TEMPLATES) == set(PIECES)


def test_errors_of_the_check_are_brought_home_to_their_app(app: Make) -> None:
    labels = {**GROUP, "HAPROXY_0_BACKEND_HEAD": "backend {backend}\n  nonsense here"}
    text = config(app("/good", labels=GROUP), app("/bad", labels=labels, ports=(Port(index=0, service_port=9),)))
    number = text.splitlines().index("  nonsense here") + 1
    said = (
        f"[ALERT]    (7) : config : parsing [/x/haproxy.cfg:{number}] : unknown keyword 'nonsense' in 'backend' section"
    )
    assert blame(text, said) == {"/bad": "unknown keyword 'nonsense' in 'backend' section"}
    head = text.splitlines().index("backend bad_9") + 1
    assert set(blame(text, f"[ALERT] (7) : config : parsing [h:{head}] : x")) == {"/bad"}
    assert set(blame(text, "[ALERT] (7) : config : parsing [h:2] : x")) == {""}


def test_ipv6_servers_stand_in_brackets(app: Make) -> None:
    made = app(count=1, labels=GROUP)
    endpoint = replace(made.instances[0].endpoints[0], address="fd00::1")
    made = replace(made, instances=(replace(made.instances[0], endpoints=(endpoint,)),))
    assert "server s1 [fd00::1]:31000 " in config(made)
