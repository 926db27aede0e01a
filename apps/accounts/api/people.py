"""Users and API keys in the API."""

from typing import Any, ClassVar

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import selectors
from apps.accounts.api.serializers import (
    APIKeyChange,
    APIKeyIn,
    APIKeyMade,
    APIKeyOut,
    APIKeyRotation,
    UserChange,
    UserIn,
    UserOut,
)
from apps.accounts.models import APIKey, Membership, User
from apps.accounts.services import api_keys, users
from apps.common.api.serializers import EmptySerializer, take_nothing
from apps.common.api.views import KindViewSet, TenantViewSet
from apps.common.context import current_scope
from apps.common.errors import NotFound, ValidationFailed
from apps.common.outbox import unit_of_work


def visible_users() -> QuerySet[User]:
    """Return the users whom the caller may know of: a superuser all, others the members of their tenant."""
    scope = current_scope()
    if scope is not None and scope.actor.is_superuser:
        return User.objects.all()
    return User.objects.filter(pk__in=Membership.objects.values("user_id"))


def visible_user(named: str) -> User:
    """Return a user by id or name; raises NotFound, the same for a stranger as for nobody."""
    key = selectors.as_uuid(named)
    user = visible_users().filter(**({"pk": key} if key else {"username": named.replace("\x00", "")})).first()
    if user is None:
        raise NotFound("There is no such user.")
    return user


class UsersViewSet(ListModelMixin, RetrieveModelMixin, KindViewSet):
    """Users: a superuser sees all, everybody else the members of their tenant."""

    model = User
    kind = "user"
    slug_field: ClassVar[str | None] = "username"
    serializer_class = UserOut
    filterset_fields = ("is_active", "is_superuser", "username")
    ordering_fields = ("username", "date_joined", "last_login")

    def rows(self) -> QuerySet[Any]:
        """Return the users that the caller may know of."""
        return visible_users()

    @extend_schema(request=UserIn, responses={201: UserOut})
    def create(self, request: Request) -> Response:
        """Make a user with roles in the tenant in force."""
        given = UserIn(data=request.data).given()
        given["roles"] = [selectors.role(named) for named in given.get("roles", [])]
        return Response(UserOut(users.create_user(**given)).data, status=201)

    @extend_schema(request=UserChange, responses=UserOut)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change a user, or set a password (null: no sign-in).

        One's own password is changed by a session, with `current_password`, and by no key; another's with `user.admin`.
        """
        given = UserChange(data=request.data).given()
        current = given.pop("current_password", None)
        if current is not None and "password" not in given:
            raise ValidationFailed("There is no new password.", errors={"password": ["Give the new password as well."]})
        user = self.get_object()
        with unit_of_work():
            if "password" in given:
                user = users.set_password(user, given.pop("password"), current=current)
            if given:
                user = users.update_user(user, **given)
        return Response(UserOut(user).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """Delete a user, their roles and keys."""
        users.delete_user(self.get_object())
        return Response(status=204)

    @extend_schema(request=EmptySerializer, responses=UserOut)
    @action(detail=True, methods=["post"])
    def deactivate(self, request: Request, id: str) -> Response:
        """Shut a user out."""
        take_nothing(request)
        return Response(UserOut(users.deactivate_user(self.get_object())).data)

    @extend_schema(request=EmptySerializer, responses=UserOut)
    @action(detail=True, methods=["post"])
    def activate(self, request: Request, id: str) -> Response:
        """Let a user in again."""
        take_nothing(request)
        return Response(UserOut(users.activate_user(self.get_object())).data)


class APIKeysViewSet(TenantViewSet):
    """API keys of a tenant, addressed by id or public prefix."""

    model = APIKey
    kind = "api_key"
    slug_field: ClassVar[str | None] = "prefix"
    serializer_class = APIKeyOut
    filterset_fields = {"owner": ["exact"], "prefix": ["exact"], "revoked_at": ["isnull"], "expires_at": ["isnull", "lt", "gt"]}
    ordering_fields = ("name", "created_at", "last_used_at", "expires_at")

    def rows(self) -> QuerySet[Any]:
        """Return the keys with their owners."""
        return super().rows().select_related("owner")

    @extend_schema(request=APIKeyIn, responses={201: APIKeyMade})
    def create(self, request: Request) -> Response:
        """Make a key; its text stands in this answer and nowhere else."""
        given = APIKeyIn(data=request.data).given()
        named = given.pop("owner", None)
        owner = selectors.user(request.user.pk) if named is None else visible_user(named)
        key, text = api_keys.create_api_key(owner=owner, **given)
        return Response(APIKeyMade(key, context={"text": text}).data, status=201)

    @extend_schema(request=APIKeyChange, responses=APIKeyOut)
    def partial_update(self, request: Request, id: str) -> Response:
        """Change a key."""
        given = APIKeyChange(data=request.data).given()
        return Response(APIKeyOut(api_keys.update_api_key(self.get_object(), **given)).data)

    @extend_schema(request=APIKeyRotation, responses=APIKeyMade)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, id: str) -> Response:
        """Give a key a new text, which stands in this answer and nowhere else; the one before is accepted for a while."""
        given = APIKeyRotation(data=request.data).given()
        key, text = api_keys.rotate_api_key(self.get_object(), overlap_seconds=given["overlap_seconds"])
        return Response(APIKeyMade(key, context={"text": text}).data)

    @extend_schema(request=EmptySerializer, responses=APIKeyOut)
    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, id: str) -> Response:
        """End a key for good; a repeat changes nothing."""
        take_nothing(request)
        return Response(APIKeyOut(api_keys.revoke_api_key(self.get_object())).data)

    @extend_schema(responses={204: None})
    def destroy(self, request: Request, id: str) -> Response:
        """End a key for good, as `revoke`; the row stays, for the log."""
        api_keys.revoke_api_key(self.get_object())
        return Response(status=204)
