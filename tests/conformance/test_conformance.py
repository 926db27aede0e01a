"""The official conformance suite through the gateway: legs of `make conformance` with their floors."""

import os

import pytest

from tests import migrated, services
from tests.conformance import suite
from tests.conformance.run import LEGS, run
from tests.conformance.run import switchyard as for_all_legs

pytestmark = [pytest.mark.once, pytest.mark.peers, pytest.mark.slow]

SCENARIOS = {
    ("server", "2025-11-25"): (30, 3),
    ("server", "2026-07-28"): (37, 13),
    ("client", "2025-11-25"): (8, 1),
    ("client", "2026-07-28"): (13, 1),
}
"""How many are run here, required and not scored: fewer would prove less."""
OAUTH = (
    "metadata-default",
    "basic-cimd",
    "pre-registration",
    "scope-step-up",
    "authorization-server-migration",
    "iss-wrong-issuer",
)
"""Of the 39 scenarios with OAuth those that differ most; `make conformance` runs all."""


@pytest.fixture(scope="module")
def switchyard(tmp_path_factory):
    """One for all legs."""
    home = tmp_path_factory.mktemp("conformance") / "home"
    with for_all_legs(home, **migrated.on_sqlite(home, services.common_directory(tmp_path_factory))) as product:
        yield product


@pytest.mark.parametrize("leg", ["same-era", "legacy-client-rounds", "modern-client-parked", "clients"])
def test_what_is_said_directly_is_said_through_the_gateway(leg, switchyard, tmp_path):
    try:
        suite.install()
    except suite.SuiteUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    side = "server" if LEGS[leg].fixture else "client"
    for result in run(leg, switchyard, tmp_path / "results", only=rf"^(?!auth/)|^auth/({'|'.join(OAUTH)})$"):
        (passed, total), (others, unscored) = result.required(), result.others()
        assert (total, unscored) == SCENARIOS[side, result.revision]
        floor = LEGS[leg].floors[result.revision]
        assert passed >= min(floor.required, total), "\n".join(result.lines())
        assert others >= floor.others, "\n".join(result.lines())
