"""Packs: text put away in a page, and got back. Run: pytest tests/records/test_packs.py"""

import base64
import json
import resource
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_sessions import HOSTILE
from tinyablation.records import packs
from tinyablation.records.packs import PackError, element, pack, unpack


@given(st.text())
def test_text_comes_back_as_it_was(text):
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return  # a lone surrogate is no text; plain() has made it visible before
    assert unpack(pack(text)) == text


def test_no_text_ends_the_element():
    made = element("a.b-c", {"text": f"{HOSTILE}\u2028\u2029&"})
    assert made.count("<") == 2 and made.count(">") == 2 and "&" not in made
    (letters,) = packs.packs(f"<p>{made}<p>").values()
    assert json.loads(unpack(letters))["text"] == f"{HOSTILE}\u2028\u2029&"


@pytest.mark.parametrize("name", ["", "a b", 'a"', "a>", "é"])
def test_a_name_that_could_do_more_than_name_is_refused(name):
    with pytest.raises(PackError, match="not a valid pack name"):
        element(name, "text")


def test_the_same_text_gives_the_same_bytes_and_much_gives_few():
    text = "the same sentence again and again. " * 10_000
    assert pack(text) == pack(text)
    assert len(pack(text)) < len(text) / 100


@pytest.mark.parametrize(
    ("letters", "cause"),
    [
        ("!!!!", "cannot be opened"),
        ("AAAA", "cannot be opened"),
        (pack("some text that is long enough")[:-8], "it is cut off"),
    ],
)
def test_a_broken_pack_is_said_by_name(letters, cause):
    with pytest.raises(PackError, match=cause) as caught:
        unpack(letters, "report.html")
    assert str(caught.value).startswith("report.html: ")


def test_what_unpacks_to_more_than_any_page_is_refused(monkeypatch):
    monkeypatch.setattr(packs, "MOST_BYTES", 1000)
    with pytest.raises(PackError, match="over 1000 bytes"):
        unpack(pack("x" * 1001))
    assert unpack(pack("x" * 1000)) == "x" * 1000


def test_half_a_gigabyte_is_not_unpacked() -> None:
    """A page of 650 kB may hold it."""
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    letters = base64.b64encode(
        b"".join(press.compress(b" " * 10_000_000) for _ in range(50)) + press.flush()
    ).decode()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PackError, match="over 67108864 bytes"):
        packs.unpack(letters)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
