"""No message goes to anybody but the client it is for, however alike the clients' ids are; `make proof` does it with 1,000."""

import asyncio

import pytest

from tests.e2e.canaries import choir, concert
from tests.e2e.support import connect, made, rest, unique
from tests.support import eventually

pytestmark = pytest.mark.once  # what it is about does not know the database

CLIENTS = 120


def test_many_clients_with_the_same_ids_see_their_own_messages_alone(shared_product):
    keys = [
        made(rest(shared_product, "POST", "api-keys/", {"name": unique("singer"), "inherits_owner": True}))["key"]
        for _ in range(3)
    ]
    slugs = {era: unique(f"choir-{era}") for era in ("modern", "legacy")}
    with choir("modern") as modern, choir("legacy") as legacy:
        for era, url in (("modern", modern), ("legacy", legacy)):
            made(rest(shared_product, "POST", "servers/", {"slug": slugs[era], "transport": "http", "url": url}))
        for slug in slugs.values():
            client = connect(shared_product, "modern", f"/mcp/{slug}")
            eventually(lambda client=client: client.names() == ["sing"], within=25)
        report = asyncio.run(concert(shared_product.base_url, keys, slugs, CLIENTS))
    assert not report.crossed, report.crossed[:5]
    assert not report.failed, report.failed[:5]
    assert report.answered == CLIENTS
    assert report.notices >= CLIENTS, "progress and log messages reach their callers"
