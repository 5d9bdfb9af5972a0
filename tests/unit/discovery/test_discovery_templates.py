"""Keys of etcd and templates: what is in them, and what they say when something is not there."""

import json
from collections.abc import Callable

import pytest

from corral.discovery.keys import differences, make_keys, portions
from corral.discovery.registry import App, Port, apply, read_change, write_apps
from corral.discovery.template import read_template, render
from corral.lib.errors import Invalid

Make = Callable[..., App]
BOTH = (Port(index=0, service_port=10000), Port(index=1, name="admin"), Port(index=2))


def made(source: str, *apps: App, keys: dict[str, str] | None = None, **environ: str) -> str:
    return render(read_template(source, "t.j2"), {app.id: app for app in apps}, keys, environ)


def test_each_ready_instance_has_a_key_for_each_of_its_ports(app: Make) -> None:
    keys = make_keys({"/shop/web": app(ports=BOTH, count=2, ready=1)})
    name = "00000000-0000-11f1-0000-000000000001"
    assert {k: v for k, v in keys.items() if k.startswith("services/")} == {
        f"services/shop_web/{name}": b"10.0.0.1:31000",
        f"services/shop_web-admin/{name}": b"10.0.0.1:31001",
        f"services/shop_web-2/{name}": b"10.0.0.1:31002",
    }
    about = json.loads(keys["apps/shop_web"])
    assert (about["id"], about["ready"], about["ports"][0]["servicePort"]) == ("/shop/web", 1, 10000)


def test_apps_are_not_told_where_nobody_wants_it(app: Make) -> None:
    assert all(k.startswith("s/") for k in make_keys({"/a": app("/a")}, "s", ""))


def test_only_what_differs_is_written() -> None:
    assert differences({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"9", "d": b"4"}) == {
        "b": b"9", "d": b"4", "c": None,
    }  # fmt: skip


def test_changes_are_divided_into_what_a_commit_takes() -> None:
    changes: dict[str, bytes | None] = {f"k{i}": b"x" for i in range(25)}
    parts = portions(changes, 10, 1 << 20)
    assert [len(p) for p in parts] == [10, 10, 5]
    assert {k: v for p in parts for k, v in p.items()} == changes
    assert len(portions(changes, 100, 1000)) > 5
    assert portions({}, 10, 10) == []


def test_whatever_a_template_gets_is_written_as_json(app: Make) -> None:
    found = json.loads(made("{{ apps | tojson }}", app("/a", labels={"x": "<&>"}, count=1, ready=1)))
    assert [(one["id"], one["labels"], len(one["instances"])) for one in found] == [("/a", {"x": "<&>"}, 1)]
    assert made("{{ {'a': [1, 'b']} | tojson }}") == '{"a":[1,"b"]}'
    assert made("{{ {'a': 1} | tojson(indent=2) }}") == '{\n  "a": 1\n}'
    with pytest.raises(Invalid, match="line 1"):
        made("{{ range | tojson }}")


def test_a_template_lists_what_is_ready_where(app: Make) -> None:
    source = "{% for i in ready('/shop/web') %}\nserver {{ i.endpoints[0].address }}\n{% endfor %}\n"
    assert made(source, app(ready=1)) == "server 10.0.0.1\n"
    assert (
        made("{{ app('shop/web').labels.x }} {{ apps | length }} {{ env.HOME }}", app(labels={"x": "y"}), HOME="/h")
        == "y 1 /h"
    )
    assert made("{{ ready('/gone') | length }}") == "0"


def test_a_template_reads_keys_as_confd_does() -> None:
    keys = {
        "/services/web/1": "10.0.0.1:80", "/services/web/2": "10.0.0.2:80", "/services/db/1": "h:1", "/one": '{"a": 7}'
    }  # fmt: skip
    source = (
        "{{ getvs('/services/web/*') | join(',') }}|{% for p in gets('/services/*/1') %}"
        "{{ p.Key | basename }}={{ p.Value }};"
        "{% endfor %}|{{ ls('/services') }}|{{ lsdir('/') }}|{{ exists('/one') }}|{{ (getv('/one') | from_json).a }}"
        "|{{ getv('/none', 'x') }}|{{ get('/one').key }}"
    )
    assert made(source, keys=keys) == (
        "10.0.0.1:80,10.0.0.2:80|1=h:1;1=10.0.0.1:80;|['db', 'web']|['services']|True|7|x|/one"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a\n{{ nothing }}", "line 2: 'nothing' is undefined"),
        ("{{ app('/gone').id }}", "there is no app /gone"),
        ("{{ getv('/x') }}", "'getv' is undefined"),
        ("\n\n{{ 1 + 'a' }}", "line 3: TypeError"),
        ("{{ [][3].x }}", "no element 3"),
    ],
)
def test_what_is_not_there_is_an_error_with_its_line(source: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        made(source)


def test_a_key_that_is_missing_is_an_error_unless_there_is_a_default() -> None:
    with pytest.raises(Invalid, match="there is no key /x"):
        made("{{ getv('/x') }}", keys={})


def test_a_template_that_makes_no_sense_is_refused_with_its_line() -> None:
    with pytest.raises(Invalid, match="line 2"):
        read_template("a\n{% for %}", "t.j2")


def test_a_change_of_the_registry_touches_only_what_differs(app: Make) -> None:
    apps: dict[str, App] = {}
    first = read_change(write_apps({"/a": app("/a"), "/b": app("/b")}))
    assert apply(apps, first) == {"/a", "/b"}
    assert apply(apps, first) == frozenset()
    assert apply(apps, read_change(write_apps({"/b": app("/b", ready=0)}))) == {"/a", "/b"}
    assert list(apps) == ["/b"]
    assert apply(apps, read_change(b'{"apps": [], "gone": ["/b", "/c"]}')) == {"/b"}
    assert apply(apps, read_change(b"{}")) == frozenset()


def test_a_line_that_is_no_change_is_refused() -> None:
    with pytest.raises(Invalid, match="not of its form"):
        read_change(b'{"apps": 3}')
