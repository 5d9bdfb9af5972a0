import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.model.tags import MOST_LABELS, MOST_TAG_LENGTH, MOST_TAGS, find_tag_fault, make_tags


@pytest.mark.parametrize(
    ("image", "tags"),
    [
        ("nginx:1.2", ("image:nginx:1.2", "image:nginx")),
        ("nginx", ("image:nginx",)),
        ("hub:5000/team/web", ("image:hub:5000/team/web",)),
        ("hub:5000/web:1@sha256:ab", ("image:hub:5000/web:1@sha256:ab", "image:hub:5000/web")),
        ("web@sha256:ab", ("image:web@sha256:ab", "image:web")),
        ("", ()),
    ],
)
def test_an_image_is_found_with_and_without_its_version(image: str, tags: tuple[str, ...]) -> None:
    assert make_tags(image=image) == tags


def test_labels_come_in_order_and_no_more_than_32_of_them() -> None:
    labels = {f"l{n:02}": "x" for n in reversed(range(40))}
    tags = make_tags(labels=labels, name="web")
    assert tags == (*(f"label:l{n:02}=x" for n in range(MOST_LABELS)), "task:web")
    assert make_tags(labels={"tier": "db"}) == ("label:tier=db",)


def test_what_can_be_no_tag_is_left_out() -> None:
    assert make_tags(labels={"a": "x" * 300, "b": "1\n2", "c": "3"}) == ("label:c=3",)


@given(st.text(max_size=300), st.dictionaries(st.text(max_size=300), st.text(max_size=300)), st.text(max_size=300))
def test_tags_that_are_made_are_always_good(image: str, labels: dict[str, str], name: str) -> None:
    tags = make_tags(image=image, labels=labels, name=name)
    assert len(tags) <= MOST_TAGS
    assert [find_tag_fault(tag) for tag in tags] == [None] * len(tags)
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("", "empty tag"),
        ("x" * (MOST_TAG_LENGTH + 1), "of 256 characters; 255 are the most"),
        ("a\nb", "control characters"),
        ("port:80", "kept for the allocator"),
        ("group:F/web", "kept for the allocator"),
    ],
)
def test_a_text_that_is_no_tag_is_told_why(tag: str, words: str) -> None:
    fault = find_tag_fault(tag)
    assert fault is not None
    assert words in fault
