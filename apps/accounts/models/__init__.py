"""Tenants, people, roles and API keys."""

from apps.accounts.models.api_key import APIKey
from apps.accounts.models.people import Membership, Role, User
from apps.accounts.models.tenant import Tenant

__all__ = ("APIKey", "Membership", "Role", "Tenant", "User")
