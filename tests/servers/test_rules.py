"""The pure rules for addresses, names and what is shown of arguments."""

import pytest

from apps.servers import rules


@pytest.mark.parametrize(
    "url",
    [
        "https://e.com",
        "http://e.com:8080/mcp?team=a&monkey=1",
        "https://[2001:db8::1]:443/",
        "https://xn--bcher-kva.example/",
        "http://e.com/a%20b",
        "http://e.com?mail=a@b.c",
    ],
)
def test_urls_that_are_accepted(url):
    rules.check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "e.com",
        "//e.com",
        "ftp://e.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "http:///mcp",
        "http://user@e.com",
        "http://user:pass@e.com",
        "http://user:se:cret@e.com",
        "http://e.com#top",
        "http://e.com/#",
        "http://e.com:0/",
        "http://e.com:99999/",
        "http://e.com:x/",
        "http://[::1/",
        "http://e.com/a b",
        "http://e.com/\r\nHost: x",
        "http://e.com\\@f.com",
        "http://e.com/\x00",
        "http://e.com/?api_key=1",
        "http://e.com/?tavilyApiKey=1",
        "http://e.com/?a=1&access-token=2",
        "http://e.com/" + "a" * 2000,
    ],
)
def test_urls_that_are_refused(url):
    with pytest.raises(ValueError, match=r"\."):
        rules.check_url(url)


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(ValueError, match="user name") as caught:
        rules.check_url("http://user:hunter22@e.com")
    assert "hunter22" not in str(caught.value)
    with pytest.raises(ValueError, match="can be read") as caught:
        rules.check_url("http://user:hunter22")
    assert "hunter22" not in str(caught.value)


def test_origins():
    assert rules.origin("https://E.com/a") == rules.origin("https://e.com:443/b") == rules.origin("https://e.com./")
    assert rules.origin("https://e.com") != rules.origin("http://e.com")
    assert rules.origin("https://e.com") != rules.origin("https://e.com:444")


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "API-KEY", "x-api-key", "accessToken", "--password", "client_secret", "auth", "sig"]
)
def test_names_of_secrets(name):
    assert rules.looks_secret(name)


@pytest.mark.parametrize("name", ["monkey", "tokens_per_second", "author", "design", "team", "keyboard", "-y"])
def test_names_of_other_things(name):
    assert not rules.looks_secret(name)


def test_arguments_are_shown_without_secrets():
    shown = rules.hide_secrets(["-y", "pkg", "--token", "t", "--key=k", "--password", "--verbose", "X-Key: v", "Bearer abc"])
    assert shown == ["-y", "pkg", "--token", "…", "--key=…", "--password", "--verbose", "X-Key: …", "…"]


def test_states():
    assert rules.derive_state(True, ["healthy"]) == "paused"
    assert rules.derive_state(False, []) == "unknown"
    assert rules.derive_state(False, ["healthy", "degraded"]) == "degraded"


def test_slugs_of_names():
    assert rules.slugify_name("  --Ünïcode  Name!! ") == "unicode-name"
    assert rules.slugify_name("🙂") == ""
    assert rules.slugify_name("a" * 39 + " b") == "a" * 39
