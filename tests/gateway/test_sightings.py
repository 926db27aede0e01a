"""Clients that speak to the gateway are gathered, and handed on together: bounded, whatever they call themselves."""

from collections.abc import Sequence

import pytest

from apps.gateway.plane.mcp.sightings import DECLARED_BYTES, MOST_OF_KEY, Sightings
from apps.gateway.plane.mcp.visit import Visit
from apps.gateway.plane.ports import ClientSighting
from apps.gateway.plane.reply import Reply
from apps.gateway.plane.views import Target
from tests.gateway.pictures import TENANT, caller, picture


class Taken:
    """The port, which keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[Sequence[ClientSighting]] = []

    def clients_seen(self, clients: Sequence[ClientSighting]) -> None:
        self.batches.append(clients)


async def nowhere(message: object) -> None:
    raise AssertionError("nothing is sent")


def visit(
    name: str = "agent", *, version: str = "1", slug: str = "", revision: str = "2026-07-28", size: int = 10, **changes
) -> Visit:
    snapshot = picture()
    made = Visit(
        None,
        snapshot,
        caller(snapshot),
        Target(TENANT, slug),
        Reply(nowhere, accepts_stream=True),
        address="10.0.0.1",
        size=size,
    )  # type: ignore[arg-type]
    made.revision, made.client, made.client_info = revision, f"{name} {version}", {"name": name, "version": version}
    made.capabilities = {"roots": {}}
    for key, value in changes.items():
        setattr(made, key, value)
    return made


@pytest.fixture
def taken():
    return Taken()


async def test_one_client_is_handed_on_once_with_all_its_calls(taken):
    sightings = Sightings(taken)
    for calls in (0, 1, 1, 1):
        sightings.note(visit(), calls)
    sightings.note(visit(slug="desk"), 1)
    sightings.hand_on()
    (batch,) = taken.batches
    first, second = batch
    assert (first.name, first.version, first.revision, first.calls, first.toolset) == ("agent", "1", "2026-07-28", 3, "")
    assert (first.declared, first.streams, first.address, first.key_id, first.tenant_id) == (
        ("roots",),
        True,
        "10.0.0.1",
        "key-1",
        TENANT,
    )
    assert (second.toolset, second.calls) == ("desk", 1)
    sightings.hand_on()
    assert len(taken.batches) == 1, "nothing new, nothing to write"


async def test_a_key_that_invents_names_takes_its_own_room_alone(taken):
    sightings = Sightings(taken)
    for number in range(MOST_OF_KEY * 20):
        sightings.note(visit(f"client {number}"), 1)
    sightings.hand_on()
    assert len(taken.batches[0]) == MOST_OF_KEY
    sightings.note(visit("another"), 1)
    sightings.hand_on()
    assert [one.name for one in taken.batches[1]] == ["another"], "room again, later"


@pytest.mark.parametrize("name", ["x" * 5000, "a\u202eb\x00c\n\x1b[31md", "", None, 7, {"deep": []}])
async def test_names_are_cut_and_printable(taken, name):
    sightings = Sightings(taken)
    sightings.note(visit(client_info={"name": name, "version": name}), 1)
    sightings.hand_on()
    (seen,) = taken.batches[0]
    assert len(seen.name) <= 120
    assert len(seen.version) <= 60
    assert seen.name.isprintable()
    assert seen.version.isprintable()


async def test_what_a_huge_request_declares_is_not_looked_at(taken):
    sightings = Sightings(taken)
    sightings.note(visit(size=DECLARED_BYTES + 1), 1)
    sightings.note(visit("silent", capabilities=None), 1)
    sightings.hand_on()
    assert [seen.declared for seen in taken.batches[0]] == [None, None]


async def test_who_has_not_said_what_it_speaks_is_no_client_yet(taken):
    sightings = Sightings(taken)
    sightings.note(visit(revision=""), 1)
    sightings.hand_on()
    assert not taken.batches
