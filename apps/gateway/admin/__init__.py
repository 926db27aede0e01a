"""Pages of the gateway's own objects."""

from apps.gateway.admin import limit

__all__ = ("limit",)
