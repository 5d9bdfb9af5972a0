"""Which Engine is spoken to, in which version, and what is said when it cannot be."""

from pathlib import Path

import pytest

from corral.docker.engine import choose_version, engine_url
from corral.docker.runtime import explain_unready
from corral.lib.errors import Invalid, Unavailable


@pytest.mark.parametrize(
    ("most", "least", "chosen"),
    [
        ("1.41", "1.12", "v1.41"),
        ("1.39", "1.12", "v1.39"),
        ("1.47", "1.24", "v1.41"),
        ("1.52", "1.44", "v1.44"),
        ("1.100", "1.24", "v1.41"),
    ],
)
def test_the_nearest_version_that_an_engine_offers_is_asked_for(most: str, least: str, chosen: str) -> None:
    assert choose_version({"ApiVersion": most, "MinAPIVersion": least}) == chosen


def test_an_engine_that_does_not_say_its_versions_is_asked_for_ours() -> None:
    assert choose_version({}) == "v1.41"


@pytest.mark.parametrize("url", ["unix:///run/docker.sock", "tcp://10.0.0.1:2375", "https://engine:2376"])
def test_a_url_that_is_given_is_used(url: str) -> None:
    assert engine_url(url) == url


@pytest.mark.parametrize("url", ["/run/docker.sock", "unix://relative", "ssh://host", "tcp://"])
def test_a_url_of_another_form_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(Invalid, match="for example unix:///var/run/docker"):
        engine_url(url)


def test_a_socket_that_is_not_there_is_told_from_a_daemon_that_is_silent(tmp_path: Path) -> None:
    gone = explain_unready(f"unix://{tmp_path}/none", Unavailable("Docker cannot be reached"))
    assert "does not exist" in gone
    assert "--docker-host" in gone
    (tmp_path / "sock").touch()
    refused = explain_unready(f"unix://{tmp_path}/sock", Unavailable("Docker at x cannot be reached (ping): refused"))
    assert "systemctl start docker" in refused
    silent = explain_unready(f"unix://{tmp_path}/sock", Unavailable("Docker at x does not answer within 3 s (ping)"))
    assert "systemctl restart docker" in silent
    assert all("--runtime process" in words for words in (gone, refused, silent))
