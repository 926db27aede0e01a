"""The routes of accounts under `/api/v1/`."""

from apps.accounts.api.people import APIKeysViewSet, UsersViewSet
from apps.accounts.api.tenancy import MembershipsViewSet, RolesViewSet, TenantsViewSet
from apps.common.api.routers import ApiRouter


def register(router: ApiRouter) -> None:
    """Add the routes."""
    router.register("tenants", TenantsViewSet, "tenant")
    router.register("users", UsersViewSet, "user")
    router.register("memberships", MembershipsViewSet, "membership")
    router.register("roles", RolesViewSet, "role")
    router.register("api-keys", APIKeysViewSet, "api-key")
