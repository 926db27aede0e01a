"""Operators and the product's own tasks write at the same time: none of them is turned away, whatever they wait for."""

import threading

from tests.e2e.support import made, rest, unique

ROUNDS = 6


def test_registrations_grants_and_discoveries_side_by_side(shared_product, rogue):
    """Each registration starts a discovery, which holds the server's row while a grant on that server is made."""
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("beside")}))
    refused = []

    def check(answer, *allowed):
        if answer.status >= 400 and answer.status not in allowed:
            refused.append((answer.status, answer.body[:300]))

    def operate():
        for _ in range(ROUNDS):
            slug = unique("beside")
            check(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": rogue.url}))
            check(rest(shared_product, "POST", "grants/", {"kind": "server", "server": slug, "api_key": key["id"]}))
            check(
                rest(
                    shared_product, "POST", "toolsets/", {"slug": unique("both"), "entries": [{"server": slug, "pattern": "*"}]}
                )
            )
            check(rest(shared_product, "POST", f"servers/{slug}/pause/"))
            check(rest(shared_product, "POST", f"servers/{slug}/resume/"))
            check(rest(shared_product, "POST", f"servers/{slug}/discover/"), 409)  # 409: one is under way
            check(rest(shared_product, "POST", "grants/", {"kind": "server", "server": slug, "role": "user"}))

    threads = [threading.Thread(target=operate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
