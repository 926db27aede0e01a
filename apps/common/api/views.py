"""The base of every view of the API: who calls, for which tenant, once, and for whom an object exists."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.mixins import ListModelMixin, RetrieveModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet

from apps.common import idempotency
from apps.common.api.authentication import ApiKeyAuthentication, ConsoleAuthentication
from apps.common.api.identity import Caller, identity
from apps.common.api.parameters import ApiFilterBackend, ApiNegotiation, refuse_unknown
from apps.common.authorise import require
from apps.common.context import Scope, current_scope, reset_scope, set_scope
from apps.common.errors import Conflict, NotFound, TenantRequired, ValidationFailed

TENANT_HEADER = "X-Switchyard-Tenant"
IDEMPOTENCY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")


class _Replay(Exception):
    """Carries a kept answer past the handler."""

    def __init__(self, answer: idempotency.StoredAnswer) -> None:
        super().__init__("replay")
        self.answer = answer


class ScopedAPIView(APIView):
    """Runs each request in the scope of its caller (origin `rest`) and carries out a repeated one once.

    The tenant is the one that `X-Switchyard-Tenant: <slug>` names, else the key's own or the session's chosen one; a
    superuser's session without a choice sees every tenant. A body is read, and refused where it is not JSON, whether or not
    the view looks at it; a query parameter that `known_parameters` does not name is refused.
    """

    authentication_classes = (ApiKeyAuthentication, ConsoleAuthentication)
    content_negotiation_class = ApiNegotiation
    metadata_class = None
    _claim: idempotency.Claim | None = None

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Handle one request."""
        with ExitStack() as stack:
            self._stack = stack
            return super().dispatch(request, *args, **kwargs)

    def perform_authentication(self, request: Request) -> None:
        """Find out who calls, and open the scope."""
        super().perform_authentication(request)
        caller = request.auth
        if isinstance(caller, Caller):
            named = request.headers.get(TENANT_HEADER)
            tenant_id = identity().tenant_for(caller, named) if named else caller.tenant_id
            every = tenant_id is None and caller.actor.is_superuser
            token = set_scope(Scope(tenant_id=tenant_id, every_tenant=every, actor=caller.actor))
            self._stack.callback(reset_scope, token)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Authenticate and authorise, then look whether the request is a repetition."""
        # Kept by Django when it is read first; whoever reads the stream first (CSRF does) would keep it from the digest.
        body = request._request.body if request.method in _CHANGING else b""
        super().initial(request, *args, **kwargs)
        if not hasattr(self, (request.method or "").lower()) or request.method == "OPTIONS":
            self.http_method_not_allowed(request)
        self.authorise(request)
        if any("\x00" in str(named) for named in kwargs.values()):
            raise NotFound("There is no such object.")  # no database takes NUL
        if request.method not in _CHANGING:
            refuse_unknown(request, self.known_parameters())
            return
        _ = request.data
        given = request.headers.get(IDEMPOTENCY_HEADER)
        caller = request.auth
        if given is None or not isinstance(caller, Caller):
            return
        scope = current_scope()
        found = idempotency.begin(
            principal=f"{caller.actor.kind}:{caller.actor.id}",
            key=idempotency.check_key(given),
            digest=idempotency.digest_request(
                request.method or "",
                request.get_full_path(),
                (scope.tenant_id if scope else None) or "",
                body,
            ),
        )
        if isinstance(found, idempotency.StoredAnswer):
            raise _Replay(found)
        self._claim = found
        self._stack.callback(found.abandon)

    def authorise(self, request: Request) -> None:
        """Ask the policy before anything is looked up; views of a kind do."""

    def known_parameters(self) -> frozenset[str]:
        """Return the query parameters that a reading request may carry."""
        return frozenset()

    def handle_exception(self, exc: Exception) -> Any:
        """Answer an exception; a kept answer is one."""
        if isinstance(exc, _Replay):
            answer = HttpResponse(exc.answer.body, status=exc.answer.status, content_type=exc.answer.content_type or None)
            answer[REPLAYED_HEADER] = "true"
            return answer
        scope = current_scope()
        if isinstance(exc, TenantRequired) and scope is not None and scope.every_tenant:
            message = f"You work in every tenant: name the one that is meant with {TENANT_HEADER}."
            exc = ValidationFailed(message, errors={TENANT_HEADER: ["Give the slug of a tenant."]})
        return super().handle_exception(exc)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Finish an answer; keep it where the request carried a key."""
        response = super().finalize_response(request, response, *args, **kwargs)
        claim, self._claim = self._claim, None
        if claim is not None:
            if isinstance(response, Response):
                response.render()
            claim.finish(
                status=response.status_code, body=bytes(response.content), content_type=response.get("Content-Type", "")
            )
        return response


class KindViewSet(ScopedAPIView, GenericViewSet[Any]):
    """Objects of one kind. Reading asks for `<kind>.read`; what changes something asks again, in its service."""

    model: ClassVar[type[Model]]
    kind: ClassVar[str]
    """As permissions spell it: `server`, `api_key`."""
    slug_field: ClassVar[str | None] = "slug"
    """The field by which an object may be addressed beside its id; None = by id alone."""
    action_verbs: ClassVar[dict[str, str]] = {}
    """The verb that an action needs to be reached at all, where that is not `read`."""
    lookup_field = "pk"
    lookup_url_kwarg = "id"
    lookup_value_regex = "[^/]+"

    def authorise(self, request: Request) -> None:
        """Ask the policy about the kind, in the tenant in force."""
        if self.action is None:
            return  # no such method: the answer is 405
        scope = current_scope()
        verb = self.action_verbs.get(self.action, "read")
        require(f"{self.kind}.{verb}", tenant_id=scope.tenant_id if scope else None, kind=self.kind)

    def known_parameters(self) -> frozenset[str]:
        """Return those of a list: its filters, its order and its page."""
        if self.action != "list":
            return frozenset()
        names = {"cursor", "limit"} | ({"ordering"} if getattr(self, "ordering_fields", None) else set())
        filterset = ApiFilterBackend().get_filterset_class(self, self.model._base_manager.none())
        return frozenset(names | set(filterset.base_filters if filterset else ()))

    def rows(self) -> QuerySet[Any]:
        """Return the objects that the caller may know of; override to narrow or to fetch related rows with them."""
        raise NotImplementedError

    def get_queryset(self) -> QuerySet[Any]:
        """Return `rows()`; nothing while the schema is made, where nobody calls."""
        if getattr(self, "swagger_fake_view", False):
            return self.model._base_manager.none()
        return self.rows()

    def get_object(self) -> Any:
        """Return the object that the address names by id or slug; raises NotFound, the same for a foreign one as for none."""
        return self.find(self.get_queryset(), str(self.kwargs[self.lookup_url_kwarg]))

    def find(self, rows: QuerySet[Any], named: str) -> Any:
        """Return the row that an id or slug names; raises NotFound, or Conflict where several tenants have the slug."""
        condition = Q(pk__in=[])
        key = _uuid(named)
        if key is not None:
            condition |= Q(pk=key)
        if self.slug_field is not None and "\x00" not in named:
            condition |= Q(**{self.slug_field: named})
        found = list(rows.filter(condition)[:2])
        if len(found) > 1:
            raise Conflict(f"Several tenants have this {self.words}; name one with {TENANT_HEADER}, or use the id.")
        if not found:
            raise NotFound(f"There is no such {self.words}.")
        return found[0]

    def find_several(self, rows: QuerySet[Any], named: Sequence[str], *, field: str) -> list[Any]:
        """Return the rows that ids or slugs name, once each, in order; raises ValidationFailed about `field` unless all are there."""
        ids = {name: _uuid(name) for name in dict.fromkeys(named)}
        condition = Q(pk__in=[key for key in ids.values() if key is not None])
        if self.slug_field is not None:
            condition |= Q(**{f"{self.slug_field}__in": [name for name in ids if "\x00" not in name]})
        found = list(rows.filter(condition))
        by_id = {row.pk: row for row in found}
        by_slug: dict[str, list[Any]] = {}
        for row in found:
            by_slug.setdefault(getattr(row, self.slug_field) if self.slug_field else "", []).append(row)
        chosen: dict[Any, Any] = {}
        problems: list[str] = []
        for name, key in ids.items():
            meant = [by_id[key]] if key in by_id else by_slug.get(name, [])
            if len(meant) == 1:
                chosen[meant[0].pk] = meant[0]
            else:
                several = f"Several tenants have the {self.words} {name}; use the id." if meant else ""
                problems.append(several or f"There is no such {self.words}: {name}.")
        if problems:
            raise ValidationFailed(f"Not every {self.words} was found; nothing was done.", errors={field: problems})
        return list(chosen.values())

    @property
    def words(self) -> str:
        """Return the kind as people write it."""
        return self.kind.replace("_", " ")


class TenantViewSet(ListModelMixin, RetrieveModelMixin, KindViewSet):
    """Objects of one kind that belong to a tenant: listed and shown here, changed by the services of their app.

    Another tenant's object is answered exactly as one that does not exist.
    """

    def rows(self) -> QuerySet[Any]:
        """Return the rows of the tenant in force."""
        rows: QuerySet[Any] = self.model.objects.all()  # type: ignore[attr-defined]
        return rows


def _uuid(text: str) -> UUID | None:
    if len(text) not in (32, 36):
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
