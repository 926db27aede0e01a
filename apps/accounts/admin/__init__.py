"""Admin pages of tenants, people and roles. API keys are completed and registered by the console, which sees grants too."""

from apps.accounts.admin import people, roles, tenant
from apps.accounts.admin.api_key import APIKeyAdmin, NetworksField

__all__ = ("APIKeyAdmin", "NetworksField", "people", "roles", "tenant")
