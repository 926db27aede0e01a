"""Sessions of the initialize era over a restart of the only process: they go on, or their clients are told that they do not."""

import concurrent.futures

import pytest

from apps.gateway.adapters.lives import FILE
from tests.e2e.paced import Paced
from tests.e2e.rogue import Rogue
from tests.e2e.sessions import initialized, refused, standalone
from tests.e2e.support import ERAS, Client, audit_rows, connect, exchange, made, rest, unique
from tests.product import Product
from tests.support import eventually

pytestmark = [pytest.mark.once, pytest.mark.slow]

GONE = (404, "session-gone")


@pytest.fixture
def server(own_product):
    with Paced() as it:
        it.slug = unique("paced")
        made(rest(own_product, "POST", "servers/", {"slug": it.slug, "transport": "http", "url": it.url, "review": "accept"}))
        eventually(lambda: "work" in connect(own_product, "modern", f"/mcp/{it.slug}").names(), within=25)
        it.product = own_product
        yield it


def start_again(product: Product) -> None:
    product.log_path.unlink()
    product.start(within=90)


def tools_of(client: Client) -> list[str]:
    return [one["name"] for one in client.ask("tools/list").result["tools"]]


def test_a_restart_and_a_crash(server):
    product = server.product
    bare, chatty, watching, ended = (initialized(product, server) for _ in range(4))
    with standalone(bare):
        assert tools_of(bare) == ["work"]
    assert chatty.ask("logging/setLevel", {"level": "debug"}).result == {}
    assert watching.ask("resources/subscribe", {"uri": "test://watched"}).result == {}
    assert exchange(product, "DELETE", ended.path, headers=ended.headers()).status == 204

    assert product.stop() == 0
    assert (product.home / FILE).stat().st_mode & 0o777 == 0o600
    start_again(product)
    assert not (product.home / FILE).exists(), "it is true once"
    assert tools_of(bare) == ["work"]
    with standalone(bare) as stream:
        assert stream.status == 200, "its lists count as changed where it comes back with an event's id"
    for lost in (chatty, watching, ended):
        assert refused(lost.ask("tools/list")) == GONE
    assert initialized(product, server).ask("logging/setLevel", {"level": "debug"}).result == {}, "they initialize again"

    product.destroy()
    start_again(product)
    assert refused(bare.ask("tools/list")) == GONE, "nobody knows what lived of it"
    assert tools_of(initialized(product, server)) == ["work"]


def test_calls_that_a_stop_cuts_off_are_answered_in_words(server):
    product = server.product
    with Rogue() as hanging:
        slug = unique("hangs")
        made(rest(product, "POST", "servers/", {"slug": slug, "transport": "http", "url": hanging.url}))
        eventually(lambda: "act" in connect(product, "modern", f"/mcp/{slug}").names(), within=20)
        clients = [connect(product, era, f"/mcp/{slug}") for era in ERAS]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(client.call, "act", {"how": "hang"}) for client in clients]
            eventually(lambda: len(hanging.calls(how="hang")) == 2, within=10)
            assert product.stop() == 0
            answers = [call.result(20) for call in calls]
    for answer in answers:
        assert (answer.status, answer.type) == (503, "not-ready")
        assert "took effect is not known" in answer.error["message"]
    start_again(product)
    rows = audit_rows(product, "event_type = 'call.outcome' AND server = ?", slug)
    assert [row["outcome"] for row in rows] == ["cancelled", "cancelled"]
