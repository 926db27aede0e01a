"""Outgoing HTTP: one pooled client that dials checked addresses only. Pure asyncio; knows no Django."""

from apps.common.http.addresses import NetworkPolicy, address_of_host
from apps.common.http.check import check_url, check_url_sync
from apps.common.http.client import HttpClient, HttpResponse, Limits
from apps.common.http.headers import RequestHeaders

__all__ = (
    "HttpClient",
    "HttpResponse",
    "Limits",
    "NetworkPolicy",
    "RequestHeaders",
    "address_of_host",
    "check_url",
    "check_url_sync",
)
