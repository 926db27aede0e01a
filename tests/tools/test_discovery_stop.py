"""A stop in the middle of a discovery: the claim is given back, and the server is discovered after the next start."""

import json
import sqlite3
import sys

import pytest

from tests import migrated, services
from tests.e2e.support import made, rest
from tests.product import Product
from tests.support import eventually
from tests.tools.support import PROGRAMS, tool

pytestmark = pytest.mark.once


def claims(product: Product) -> list[tuple[str, str]]:
    """Return token and holder of each discovery, as the database has them."""
    with sqlite3.connect(product.home / "switchyard.sqlite3") as database:
        return database.execute(
            "SELECT d.token, d.holder FROM tools_discovery d JOIN servers_server s ON s.id = d.server_id WHERE s.slug = 'slow'"
        ).fetchall()


@pytest.mark.parametrize("stopped", ["by SIGTERM", "by SIGKILL"])
def test_a_stop_leaves_no_claim_behind(tmp_path, tmp_path_factory, stopped):
    offers = tmp_path / "offers.json"
    offers.write_text(json.dumps({"mode": "slow"}))
    home = tmp_path / "home"
    product = Product(home, **migrated.on_sqlite(home, services.common_directory(tmp_path_factory)))
    try:
        product.start()
        body = {
            "slug": "slow",
            "transport": "stdio",
            "command": sys.executable,
            "args": [str(PROGRAMS / "raw.py"), str(offers)],
        }
        made(rest(product, "POST", "servers/", body))
        eventually(lambda: any(token for token, _ in claims(product)), within=20)
        assert rest(product, "POST", "servers/slow/discover/").status == 409
        if stopped == "by SIGTERM":
            assert product.stop(within=12) == 0
            assert claims(product) == [("", "")]
        else:
            product.destroy()
            assert claims(product)[0][1].count("/") == 2
        offers.write_text(json.dumps({"tools": [tool("late")]}))
        product.log_path.unlink()
        product.start()
        # what was cut short is taken up without being asked for
        eventually(lambda: made(rest(product, "GET", "tools/?server=slow"))["results"], within=40)
        eventually(lambda: claims(product) == [("", "")], within=40)
        assert made(rest(product, "POST", "servers/slow/discover/"))["unchanged"] == 1
    finally:
        product.destroy()
