"""What tests of Switchyard as an OAuth client share: a person who goes to the authorization server and comes back."""

from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

import pytest

from apps.common.context import SYSTEM, tenant_scope
from apps.servers.models import OAuthConnection
from apps.servers.services.access import access_of
from apps.servers.services.connection import test_connection as probe
from apps.servers.services.oauth import connecting
from tests.factories import as_user


class _Stay(HTTPRedirectHandler):
    def redirect_request(self, *_, **__):
        return None


def agree(url: str) -> dict[str, str]:
    """Go to the authorization server as a browser does; return what its answer says."""
    with pytest.raises(HTTPError) as led:
        build_opener(_Stay).open(url)
    assert led.value.code == 302, led.value.read()
    return {name: values[0] for name, values in parse_qs(urlsplit(led.value.headers["Location"]).query).items()}


def begin(server, person, **more):
    with tenant_scope(server.tenant_id, as_user(person)):
        return connecting.begin(server, person=person, **more)


def finish(answer, person):
    with tenant_scope(tenant_of(person), as_user(person)):
        return connecting.finish(
            person=person,
            state=answer.get("state", ""),
            code=answer.get("code", ""),
            error=answer.get("error", ""),
            issuer=answer.get("iss"),
        )


def tenant_of(person):
    """A tenant in which the person works now: the answer is taken in the tenant of the server, whichever is in view."""
    from apps.accounts.models import Membership

    return Membership.unscoped.filter(user=person).values_list("tenant_id", flat=True).first()


def connect(server, person, **more) -> OAuthConnection:
    return finish(agree(begin(server, person, **more).authorization_url), person)


def token_of(server, user="") -> str:
    line = access_of(server.pk, user).tokens.line.decode()
    return line.removeprefix("Authorization: Bearer ").strip()


def types(rows) -> list[str]:
    return [row["event_type"] for row in rows if row["event_type"].startswith("connection.")]


def probe_as_system(server):
    with tenant_scope(server.tenant_id, SYSTEM):
        return probe(server)
