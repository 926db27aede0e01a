"""Where this installation may connect to, asked before a URL is kept. Every connection asks again, for the address it dials."""

from functools import lru_cache

from django.conf import settings

from apps.common.errors import AddressRefused, UpstreamUnavailable
from apps.common.events import ControlEvent
from apps.common.http.addresses import NetworkPolicy
from apps.common.http.check import check_url_sync
from apps.common.outbox import audit_apart
from apps.servers import rules
from apps.servers.models import Server


@lru_cache(maxsize=16)
def _policy(networks: tuple[str, ...]) -> NetworkPolicy:
    return NetworkPolicy.parse(networks)


def network_policy(*, builtin: bool = False) -> NetworkPolicy:
    """Return the policy of SWITCHYARD_ALLOWED_NETWORKS; built-in servers run on this machine, so they may be on loopback."""
    networks = tuple(settings.SWITCHYARD.allowed_networks)
    return _policy((*networks, "loopback") if builtin else networks)


def check_server_url(server: Server, url: str) -> None:
    """Raise AddressRefused, and record it, when the URL's host is, or resolves to, an address that may not be reached.

    A name that does not resolve now is accepted: the connection checks what it resolves to then. A URL that is not well formed
    is left to the validation of input.
    """
    try:
        rules.check_url(url)
    except ValueError:
        return
    try:
        check_url_sync(url, network_policy(builtin=server.builtin))
    except UpstreamUnavailable:
        return
    except AddressRefused as error:
        audit_apart(
            ControlEvent(
                event_type="access.refused",
                action="server.write",
                object_kind="server",
                object_id="" if server._state.adding else str(server.pk),
                object_label=server.slug,
                outcome="refused",
                tenant_id=str(server.tenant_id),
                details={"rule": "network", "url": url, "reason": error.detail},
            )
        )
        raise
