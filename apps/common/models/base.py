"""Base models: identifiers, time stamps, and the tenant wall in the query layer."""

from typing import Any

from django.db import models

from apps.common.context import current_scope
from apps.common.errors import TenantRequired
from apps.common.ids import new_id


class BaseModel(models.Model):
    """A row with a time-ordered UUID and its time stamps."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class TenantQuerySet(models.QuerySet[Any]):
    """The base of the query sets of a tenant's rows."""


class TenantManager(models.Manager[Any]):
    """Gives the rows of the tenant in force; raises TenantRequired when no scope is open."""

    def none(self) -> models.QuerySet[Any]:
        """Return no rows, which needs no tenant."""
        return super().get_queryset().none()

    def get_queryset(self) -> models.QuerySet[Any]:
        """Return the scoped query set."""
        rows = super().get_queryset()
        scope = current_scope()
        if scope is None or (scope.tenant_id is None and not scope.every_tenant):
            raise TenantRequired(f"{self.model.__name__} rows were asked for without a tenant.")
        if scope.every_tenant:
            return rows
        return rows.filter(tenant_id=scope.tenant_id)


class TenantModel(BaseModel):
    """A row that belongs to a tenant.

    `objects` sees the tenant in force and raises without one. `unscoped` is for Django's own machinery
    (validation, cascades, start-up) and is the default manager for that reason alone.
    """

    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.CASCADE, related_name="+")

    unscoped = models.Manager()
    objects = TenantManager()

    class Meta:
        abstract = True
        default_manager_name = "unscoped"
        base_manager_name = "unscoped"
