"""Reading clients' files: every form in use, comments, placeholders, and what is wrong in them."""

import pytest

from apps.common.errors import MalformedRequest, TooLarge, ValidationFailed
from apps.servers.mcp_files import parse_document, read_document


def one(entry, environment=None, **outer):
    [found] = read_document({"mcpServers": {"It": entry}, **outer}, environment or {})
    return found


def test_claude_desktop():
    entry = one({"command": "npx", "args": ["-y", "server-github"], "env": {"TOKEN": "t", "PORT": 80, "DEBUG": True}})
    assert (entry.slug, entry.name, entry.errors, entry.warnings) == ("it", "It", [], [])
    assert entry.settings == {"transport": "stdio", "command": "npx", "args": ["-y", "server-github"], "cwd": ""}
    assert entry.values == {"TOKEN": "t", "PORT": "80", "DEBUG": "true"}


@pytest.mark.parametrize(
    ("entry", "transport"),
    [
        ({"url": "https://e.com/mcp"}, "http"),
        ({"url": "https://e.com/sse"}, "sse"),
        ({"url": "https://e.com/sse", "type": "http"}, "http"),
        ({"url": "https://e.com/mcp", "type": "sse"}, "sse"),
        ({"url": "https://e.com/mcp", "transport": "sse"}, "sse"),
        ({"url": "https://e.com/mcp", "type": "streamable-http"}, "http"),
        ({"url": "https://e.com/mcp", "type": "streamableHttp"}, "http"),
        ({"serverUrl": "https://e.com/sse"}, "sse"),
        ({"httpUrl": "https://e.com/sse"}, "http"),
        ({"command": "x", "type": "stdio"}, "stdio"),
    ],
)
def test_how_it_is_reached(entry, transport):
    found = one(entry)
    assert (found.errors, found.settings["transport"]) == ([], transport)


def test_vs_code_with_inputs_comments_and_trailing_commas():
    text = """\ufeff
    {
      // what is asked for
      "inputs": [
        {"type": "promptString", "id": "api-key", "description": "Key // not a comment", "password": true},
        {"type": "promptString", "id": "region", "description": "R", "default": "eu"},
      ],
      /* the servers */
      "servers": {
        "Weather": {
          "type": "http",
          "url": "https://${input:region}.example.com/a//b",
          "headers": {"X-Key": "${input:api-key}", "X-Home": "${env:HOME_OF}/x,}",},
        },
      },
    }"""
    [entry] = read_document(parse_document(text.encode()), {"API_KEY": "k", "HOME_OF": "/h"})
    assert entry.errors == []
    assert entry.settings == {"transport": "http", "url": "https://eu.example.com/a//b"}
    assert entry.values == {"X-Key": "k", "X-Home": "/h/x,}"}


def test_a_settings_file_may_hold_the_table_deeper():
    [entry] = read_document({"mcp": {"servers": {"a": {"command": "x"}}, "inputs": []}, "editor.tabSize": 2}, {})
    assert entry.settings["command"] == "x"


def test_placeholders_with_and_without_values():
    entry = one(
        {
            "url": "https://e.com/${PATH_PART:-mcp}",
            "headers": {"A": "Bearer ${TOKEN}", "B": "${env:NONE}", "C": "${env:OTHER:-c}", "D": "$plain {x}"},
        },
        {"TOKEN": "t"},
    )
    assert entry.settings["url"] == "https://e.com/mcp"
    assert entry.values == {"A": "Bearer t", "B": None, "C": "c", "D": "$plain {x}"}
    assert entry.unresolved == {"B": ["${env:NONE}"]}
    missing = one({"command": "x", "args": ["${workspaceFolder}", "${NONE}"], "cwd": "${userHome}/a"}, {"HOME": "/root"})
    assert missing.settings["cwd"] == "/root/a"
    assert missing.errors == ["args: no value for ${workspaceFolder}.", "args: no value for ${NONE}."]


def test_the_products_own_secrets_are_never_filled_in():
    own = {"SWITCHYARD_SECRET_KEY": "s", "SWITCHYARD_ENCRYPTION_KEYS": "k", "DATABASE_URL": "d"}
    headers = {"A": "${SWITCHYARD_SECRET_KEY}", "B": "${env:DATABASE_URL}", "C": "${input:switchyard-encryption-keys}"}
    entry = one({"url": "https://e.com", "headers": headers}, own)
    assert set(entry.values.values()) == {None}
    assert one({"command": "x", "args": ["${DATABASE_URL}"]}, own).errors


def test_a_password_is_not_put_where_it_would_be_shown():
    inputs = [{"id": "key", "password": True}]
    entry = one({"command": "x", "args": ["--key=${input:key}"]}, {"KEY": "hidden-value"}, inputs=inputs)
    assert len(entry.errors) == 1
    assert "env or headers" in entry.errors[0]
    assert "hidden-value" not in str(entry)


def test_disabled_and_enabled():
    assert one({"command": "x"}).disabled is None
    assert one({"command": "x", "disabled": True}).disabled is True
    assert one({"command": "x", "disabled": False}).disabled is False
    assert one({"command": "x", "enabled": False}).disabled is True
    assert one({"command": "x", "disabled": "yes"}).errors


def test_what_is_not_used_is_said():
    entry = one({"command": "x", "envFile": ".env", "autoApprove": ["a"], "headers": {"A": "b"}})
    assert entry.warnings == ["autoApprove is not used", "envFile is not used", "headers are not used for a command"]
    assert one({"url": "https://e.com", "env": {"A": "b"}}).warnings == ["env is not used for a URL"]


def test_the_extension():
    own = {"review": "accept", "timeout_seconds": 5, "new": 1}
    entry = one({"command": "x", "x-switchyard": own})
    assert entry.settings["review"] == "accept"
    assert entry.settings["timeout_seconds"] == 5
    assert entry.warnings == ["x-switchyard.new is not used"]
    assert one({"command": "x", "x-switchyard": {"timeout_seconds": True}}).errors
    assert one({"command": "x", "x-switchyard": []}).errors


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "npx",
        {},
        {"command": ""},
        {"command": "x", "url": "https://e.com"},
        {"command": ["x"]},
        {"command": "x", "args": "-la"},
        {"command": "x", "args": [1]},
        {"command": "x", "env": ["A"]},
        {"command": "x", "env": {"A": None}},
        {"command": "x", "env": {"A": {}}},
        {"command": "x", "cwd": 3},
        {"command": "x", "type": "http"},
        {"url": "https://e.com", "type": "stdio"},
        {"url": "https://e.com", "type": "carrier-pigeon"},
        {"url": "https://e.com", "type": 7},
        {"url": 7},
    ],
)
def test_a_bad_entry_says_why(entry):
    assert one(entry).errors


def test_names_become_slugs_always_the_same_and_collisions_are_refused():
    names = ["My Files (EU)", "Café", "x" * 60, "a__b", "UPPER.case", "漢字", "My-Files/EU"]
    entries = {entry.name: entry for entry in read_document({"mcpServers": {name: {"command": "x"} for name in names}}, {})}
    assert entries["Café"].slug == "cafe"
    assert entries["x" * 60].slug == "x" * 40
    assert entries["a__b"].slug == "a-b"
    assert entries["UPPER.case"].slug == "upper-case"
    assert entries["漢字"].errors
    assert entries["My Files (EU)"].slug == entries["My-Files/EU"].slug == "my-files-eu"
    assert entries["My Files (EU)"].errors
    assert entries["My-Files/EU"].errors


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{",
        '{"a": 1, "a": 2}',
        '{"a": NaN}',
        '{"a": Infinity}',
        "\xff",
        '{"a": "b}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_what_is_not_one_strict_object_is_refused(text):
    with pytest.raises(MalformedRequest):
        parse_document(text.encode("latin-1"))


def test_limits():
    with pytest.raises(TooLarge):
        parse_document(b" " * (1024 * 1024 + 1))
    with pytest.raises(ValidationFailed):
        read_document({"mcpServers": {f"s{n}": {"command": "x"} for n in range(1001)}}, {})
    for document in ({}, {"mcpServers": []}, {"servers": None}, {"mcp": 3}):
        with pytest.raises(ValidationFailed):
            read_document(document, {})


def test_how_a_server_is_authenticated():
    assert one({"url": "https://e.com/mcp", "auth": "oauth"}).settings["auth"] == "oauth"
    found = one({"url": "https://e.com/mcp", "x-switchyard": {"auth": "oauth-user", "oauth_scope": "read write"}})
    assert (found.settings["auth"], found.settings["oauth_scope"], found.warnings) == ("oauth-user", "read write", [])
    assert one({"url": "https://e.com/mcp", "auth": {"CLIENT_SECRET": "s"}}).warnings == [
        "auth is not used: only “oauth” is understood there"
    ]
    assert "auth" not in one({"command": "x", "auth": "oauth"}).settings
