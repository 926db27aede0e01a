"""The official conformance suite through the gateway: legs of `make conformance` with their floors."""

import os

import pytest

from tests.conformance import suite
from tests.conformance.run import LEGS, run

pytestmark = [pytest.mark.once, pytest.mark.peers, pytest.mark.slow]

SCENARIOS = {
    ("server", "2025-11-25"): (30, 3),
    ("server", "2026-07-28"): (37, 13),
    ("client", "2025-11-25"): (4, 1),
    ("client", "2026-07-28"): (7, 1),
}
"""How many are run here, required and not scored: fewer would prove less. The clients' are those without OAuth."""


@pytest.mark.parametrize("leg", ["same-era", "legacy-client-rounds", "modern-client-parked", "clients"])
def test_what_is_said_directly_is_said_through_the_gateway(leg, tmp_path):
    try:
        suite.install()
    except suite.SuiteUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    side = "server" if LEGS[leg].fixture else "client"
    for result in run(leg, tmp_path / "product", tmp_path / "results", only="^(?!auth/)"):
        (passed, total), (others, unscored) = result.required(), result.others()
        assert (total, unscored) == SCENARIOS[side, result.revision]
        floor = LEGS[leg].floors[result.revision]
        assert passed >= floor.required, "\n".join(result.lines())
        assert others >= floor.others, "\n".join(result.lines())
