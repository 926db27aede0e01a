"""Users, roles and who has which role where."""

from typing import ClassVar

from django.contrib.auth.models import AbstractUser
from django.db import models

from apps.common.ids import new_id
from apps.common.models import TenantModel


class User(AbstractUser):
    """A person or a service account. Superusers stand above tenants."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta(AbstractUser.Meta):
        ordering = ("username",)


class Role(TenantModel):
    """A named set of permissions (`<kind>.<verb>`, `*` as either part) in one tenant."""

    slug = models.SlugField(max_length=40)
    name = models.CharField(max_length=80)
    permissions = models.JSONField(default=list, blank=True)
    builtin = models.BooleanField(default=False, editable=False)

    class Meta(TenantModel.Meta):
        ordering = ("name",)
        constraints = (models.UniqueConstraint(fields=("tenant", "slug"), name="role_slug_once"),)

    def __str__(self) -> str:
        return self.name


class Membership(TenantModel):
    """A user's role in a tenant; a user may have several."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.ForeignKey(Role, on_delete=models.CASCADE, related_name="memberships")

    class Meta(TenantModel.Meta):
        constraints = (models.UniqueConstraint(fields=("tenant", "user", "role"), name="membership_once"),)

    def __str__(self) -> str:
        return f"{self.user} is {self.role}"
