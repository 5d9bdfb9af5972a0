"""Which credentials an image is pulled with, out of what `docker login` has written."""

import base64
import json
from typing import Any

import pytest

from corral.docker.registry import make_header, registry_of
from corral.lib.errors import Failed


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def header(image: str, found: Any) -> Any:
    made = make_header(image, json.dumps(found).encode(), "the file")
    return json.loads(base64.urlsafe_b64decode(made)) if made else None


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("nginx", "docker.io"), ("library/nginx:1", "docker.io"), ("docker.io/library/nginx", "docker.io"),
        ("index.docker.io/a/b", "docker.io"), ("reg.example.org/a/b:1", "reg.example.org"),
        ("Reg.Example.org:5000/a", "reg.example.org:5000"), ("localhost/a", "localhost"), ("own/a", "docker.io"),
        ("127.0.0.1:5000/a@sha256:00", "127.0.0.1:5000"),
    ],
)  # fmt: skip
def test_an_image_says_its_registry(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def test_the_entry_of_the_images_registry_is_shown_and_no_other() -> None:
    found = {
        "auths": {
            "https://index.docker.io/v1/": {"auth": auth("hub", "a:b")},
            "r.example.org": {"auth": auth("own", "x")},
            "https://reg.example.org:5000/v2/": {"username": "u", "password": "p"},
            "tokens.example.org": {"identitytoken": "t", "auth": auth("ignored", "x")},
        }
    }
    assert header("nginx", found) == {"username": "hub", "password": "a:b", "serveraddress": "docker.io"}
    assert header("r.example.org/a", found) == {"username": "own", "password": "x", "serveraddress": "r.example.org"}
    assert header("reg.example.org:5000/a", found)["username"] == "u"
    assert header("tokens.example.org/a", found) == {"identitytoken": "t", "serveraddress": "tokens.example.org"}
    assert header("elsewhere.example.org/a", found) is None
    assert header("r.example.org.evil.example/a", found) is None


def test_the_older_form_holds_the_entries_alone() -> None:
    assert header("reg.example.org/a", {"https://reg.example.org": {"auth": auth("u", "p")}})["password"] == "p"
    assert header("nginx", {}) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'"s3cret"', b'{"auths": "s3cret"}', b'{"auths": {"docker.io": {"auth": "s3cret!"}}}',
     b'{"auths": {"docker.io": {"username": "s3cret"}}}', b'{"auths": {"docker.io": {}}}', b"\xff"],
)  # fmt: skip
def test_what_is_no_such_file_is_refused_without_being_repeated(data: bytes) -> None:
    with pytest.raises(Failed, match="the file") as caught:
        make_header("nginx", data, "the file")
    assert "s3cret" not in caught.value.message
