"""The table itself: complete, without contradiction, and with a check behind each line."""

import pytest

from tests.bridge import matrix
from tests.bridge.checks import CHECKS
from tests.bridge.house import PEERS
from tests.bridge.matrix import ERAS, WORKERS, MatrixError

TABLE = matrix.load()
SOMEWHERE = {"structured-any", "url-required", "roots-changed", "capabilities", "server-ping", "param-headers", "loose-input",
             "loose-inputs-side-by-side"}  # fmt: skip
"""Features that the protocol has in one era or on one transport alone."""
SMALL = """
workers: [one, two]
transports: {http: [legacy, modern], sse: [legacy]}
features:
  one: The first.
  two: {what: The second., servers: [modern], because: It is new.}
"""


def test_every_feature_has_a_check_and_every_check_a_feature():
    assert set(TABLE.features) == set(CHECKS)
    assert all(what.strip() for what in TABLE.features.values())


def test_every_line_is_there_once():
    """A feature without a word about where it is has one line for each client, server, transport, and number of gateways."""
    everywhere = {(client, server, transport) for client in ERAS for server, transport in PEERS}
    lines = [(line.feature, line.client, line.server, line.transport, line.workers) for line in TABLE.lines]
    assert len(lines) == len(set(lines))
    for feature in TABLE.features:
        found = {workers: {line[1:4] for line in lines if (line[0], line[4]) == (feature, workers)} for workers in WORKERS}
        assert found["one"] == found["two"] <= everywhere, feature
        if feature not in SOMEWHERE:
            assert found["two"] == everywhere, feature


def test_what_is_refused_says_why_and_is_what_no_pair_can_express():
    refused = [line for line in TABLE.lines if line.refusal]
    assert all(line.because for line in refused)
    assert {line.feature for line in refused} == {"ping"}, "a line more is refused: could the pair express it?"


def test_a_small_table():
    table = matrix.load(SMALL + "exceptions: [{features: [two], clients: [legacy], verdict: 'refused: -1', because: So.}]\n")
    assert len(table.lines) == 2 * (2 * 3 + 2)
    assert [str(line) for line in table.of("two") if line.refusal] == ["two-legacy-modern-http"]
    assert {line.verdict for line in table.lines if line.feature == "one"} == {"carried"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("exceptions: [{features: [three], verdict: 'refused: -1', because: So.}]", "not here"),
        ("exceptions: [{features: [one], verdict: 'refused: -1'}]", "an entry has"),
        ("exceptions: [{features: [one], verdict: 'refused: -1', because: ' '}]", "an entry has"),
        ("exceptions: [{features: [one], verdict: lost, because: So.}]", "no verdict"),
        ("exceptions: [{features: [two], servers: [legacy], verdict: 'refused: -1', because: So.}]", "no line is meant"),
        (
            "exceptions: [{verdict: 'refused: -1', because: So.}, {workers: [two], verdict: 'refused: -1', because: So.}]",
            "twice",
        ),
        ("exceptions: [{transports: [stdio], verdict: 'refused: -1', because: So.}]", "not here"),
        ("exceptions: [{workers: [three], verdict: 'refused: -1', because: So.}]", "not here"),
        ("pending: []", "unknown parts"),
    ],
)
def test_a_table_that_is_none(more: str, said: str):
    with pytest.raises(MatrixError, match=said):
        matrix.load(f"{SMALL}{more}\n")


def test_a_table_is_for_one_gateway_and_for_two():
    with pytest.raises(MatrixError, match="workers are"):
        matrix.load(SMALL.replace("[one, two]", "[one]"))


def test_a_feature_that_is_not_everywhere_says_why():
    with pytest.raises(MatrixError, match="because of what"):
        matrix.load(
            "workers: [one, two]\ntransports: {http: [legacy]}\nfeatures: {one: {what: The first., servers: [legacy]}}\n"
        )
