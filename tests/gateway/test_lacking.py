"""A client is asked for what it has declared, and for nothing else."""

import pytest

from apps.gateway.plane.mcp.asking import lacking


def ask(method, **params):
    return {"method": method, "params": params}


FORM, URL = ask("elicitation/create", message="x"), ask("elicitation/create", mode="url", url="https://a.example/")
SAMPLING, TOOLS = ask("sampling/createMessage", messages=[]), ask("sampling/createMessage", messages=[], tools=[])


@pytest.mark.parametrize(
    ("capabilities", "message", "lacks"),
    [
        ({}, FORM, "elicitation"),
        ({"elicitation": {}}, FORM, ""),
        ({"elicitation": {}}, URL, "elicitation.url"),
        ({"elicitation": {"form": {}}}, URL, "elicitation.url"),
        ({"elicitation": {"form": {}}}, FORM, ""),
        ({"elicitation": {"url": {}}}, FORM, "elicitation.form"),
        ({"elicitation": {"url": {}}}, URL, ""),
        ({"elicitation": {"url": {}, "form": {}}}, FORM, ""),
        ({"elicitation": True}, FORM, ""),
        ({"sampling": {}}, SAMPLING, ""),
        ({"sampling": {}}, TOOLS, "sampling.tools"),
        ({"sampling": {"tools": {}}}, TOOLS, ""),
        ({"elicitation": {}}, SAMPLING, "sampling"),
        ({"roots": {}}, {"method": "roots/list"}, ""),
        ({"roots": {}, "sampling": {}, "elicitation": {}}, {"method": "evil/x"}, "evil/x"),
        ({"roots": {}}, {"method": 7}, "7"),
        ({"roots": {}}, {}, "None"),
    ],
)
def test_what_a_client_lacks(capabilities, message, lacks):
    assert lacking(capabilities, message) == lacks
