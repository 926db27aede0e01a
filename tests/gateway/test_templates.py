"""URI templates against URIs."""

import time

import pytest

from apps.gateway.plane.templates import match_template


@pytest.mark.parametrize(
    ("template", "uri", "fits"),
    [
        ("test://template/{id}/data", "test://template/1/data", True),
        ("test://template/{id}/data", "test://template/1/2/data", False),
        ("test://template/{id}/data", "test://template/1/other", False),
        ("file:///{+path}", "file:///a/b/c.txt", True),
        ("file:///{path}", "file:///a/b", False),
        ("search{?q,page}", "search?q=1&page=2", True),
        ("search{?q}", "search", True),
        ("{a}-{b}", "x-y", True),
        ("{a}-{b}", "xy", False),
        ("plain", "plain", True),
        ("plain", "plainer", False),
        ("{a}", "", True),
        ("", "", True),
        ("x{", "x{", True),
    ],
)
def test_fit(template, uri, fits):
    assert match_template(template, uri) is fits


def test_a_hostile_template_costs_no_more_than_a_harmless_one():
    hostile = "".join(f"{{v{index}}}" for index in range(200)) + "!"
    started = time.perf_counter()
    assert not match_template(hostile, "a" * 8192)
    assert time.perf_counter() - started < 1.0
    assert not match_template("{a}", "a" * 8193)
