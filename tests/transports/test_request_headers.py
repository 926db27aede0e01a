"""Request headers: unchangeable, so that a head made once stays true."""

import pytest
from yarl import URL

from apps.common.errors import UpstreamUnavailable
from apps.common.http import RequestHeaders

HERE = URL("http://there.example/mcp?a=b")


def test_a_head_says_what_it_was_made_of():
    headers = RequestHeaders({"X-One": "1"})
    assert headers.head("POST", HERE, "there.example") == b"POST /mcp?a=b HTTP/1.1\r\nHost: there.example\r\nX-One: 1\r\n"


def test_what_the_maker_changes_afterwards_changes_nothing():
    fields = {"X-One": "1"}
    headers = RequestHeaders(fields)
    fields["X-One"] = "2"
    assert b"X-One: 1" in headers.head("GET", HERE, "h")
    with pytest.raises(TypeError):
        headers.fields["X-One"] = "2"  # type: ignore[index]


def test_a_copy_with_changes_leaves_the_first_as_it_was():
    first = RequestHeaders({"X-One": "1", "Content-Type": "a"})
    first.head("GET", HERE, "h")
    second = first.changed({"x-one": "2"}, without=("content-type", "absent"))
    assert dict(second.fields) == {"x-one": "2"}
    assert b"X-One: 1\r\nContent-Type: a\r\n" in first.head("GET", HERE, "h")
    assert b"x-one: 2" in second.head("GET", HERE, "h")


def test_each_method_and_address_has_its_own_head():
    headers = RequestHeaders({})
    assert headers.head("GET", HERE, "h").startswith(b"GET /mcp?a=b ")
    assert headers.head("POST", HERE, "h").startswith(b"POST /mcp?a=b ")
    assert headers.head("GET", URL("http://there.example/other"), "h").startswith(b"GET /other ")
    for number in range(100):
        assert headers.head("GET", URL(f"http://there.example/{number}"), "h").startswith(b"GET /%d " % number)


@pytest.mark.parametrize(
    ("name", "value"), [("X Y", "1"), ("", "1"), ("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\0b"), ("X:", "1")]
)
def test_what_http_cannot_carry_is_refused(name, value):
    with pytest.raises(UpstreamUnavailable):
        RequestHeaders({name: value}).head("GET", HERE, "h")
