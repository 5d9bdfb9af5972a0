"""The worked setup of the page on discovery: its app found by name, balanced, published, put into a file."""

import re
import urllib.request
from pathlib import Path
from typing import Any

from corral_daemons import Site, ask, run_corral, wait_until
from dnslib import DNSRecord
from tests.own_ports import free_ports

from etcd_servers import Etcd
from haproxy_server import require_haproxy

PAGE = (Path(__file__).parents[3] / "docs/operate/discovery.md").read_text(encoding="utf-8")


def look_up(port: int, name: str, kind: str) -> list[Any]:
    return list(DNSRecord.parse(DNSRecord.question(name, kind).send("127.0.0.1", port, timeout=3)).rr)


def get(port: int) -> int:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": "shop.test"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except OSError:
        return 0


def test_the_worked_setup_goes_as_the_page_says(daemons: Site, etcd: Etcd, tmp_path: Path) -> None:
    dns, http, service = free_ports(3)
    url = daemons.dev("--set", f"dns.listen=127.0.0.1:{dns}").url
    (app,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    file = tmp_path / "web.json"
    file.write_text(app.replace("10500", str(service)), encoding="utf-8")
    assert run_corral(url, "app", "apply", str(file)).code == 0
    wait_until(lambda: len(look_up(dns, "_http._tcp.web.shop.corral", "SRV")) == 2, "both instances in DNS")
    assert [str(rr.rdata) for rr in look_up(dns, "web.shop.marathon.mesos", "A")] == ["127.0.0.1"]

    lb = daemons.start(
        "lb", "--master", url, "--http", f"127.0.0.1:{http}", "--bind", "127.0.0.1", "--stats", "", "--listen",
        "127.0.0.1:0", "--haproxy", require_haproxy(), "--work-dir", str(tmp_path / "lb"),
    )  # fmt: skip
    assert get(http) == get(service) == 200
    status, told = ask(lb.url, "GET", "/corral/v1/lb")
    assert (status, told["refused"], told["services"][0]["hosts"]) == (200, {}, ["shop.test"])
    rules = {"min": 1, "max": 3, "targets": {"requests": 0.5}}
    assert ask(url, "PUT", "/corral/v1/scaling/shop/web", rules)[0] == 200

    def grown() -> bool:
        """Requests go on meanwhile: what the balancer measures of them is what the app grows by."""
        assert get(http) == 200
        return len(ask(url, "GET", "/v2/apps/shop/web/tasks")[1]["tasks"]) == 3

    wait_until(grown, "a third instance, as the balancer measures more requests than two shall have")
    (moved,) = ask(url, "GET", "/corral/v1/scaling/shop/web")[1]["history"]
    assert (moved["by"], moved["why"].split()[0]) == ("auto", "requests")
    assert ask(url, "DELETE", "/corral/v1/scaling/shop/web")[0] == 204
    wait_until(lambda: len(look_up(dns, "_http._tcp.web.shop.corral", "SRV")) == 3, "the third instance in DNS")

    shown = run_corral(url, "lb", "--once", "--http", f"127.0.0.1:{http}")
    assert "backend shop_web_" in shown.out

    keys = f"etcd://{etcd.members[0].address}"
    daemons.start("publish", "--master", url, "--etcd", keys, ready=False)
    template = tmp_path / "t.j2"
    template.write_text(
        "{% for v in getvs('/services/shop_web/*') | sort %}\n{{ v }}\n{% endfor %}\n", encoding="utf-8"
    )
    made = tmp_path / "made"
    words = ("template", str(template), str(made), "--etcd", keys, "--no-master", "--once", "--prefix", "/services")
    wait_until(lambda: run_corral(url, *words).code == 0 and made.read_text().count("\n") == 3, "the keys in a file")
    told = [f"127.0.0.1:{rr.rdata.port}" for rr in look_up(dns, "_http._tcp.web.shop.corral", "SRV")]
    assert made.read_text().split() == sorted(told)

    assert run_corral(url, "scale", "shop/web", "1").code == 0
    wait_until(lambda: len(look_up(dns, "_http._tcp.web.shop.corral", "SRV")) == 1, "one instance in DNS")
    assert get(http) == 200
