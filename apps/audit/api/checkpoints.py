"""Signed checkpoints of the log in the API: the documents themselves, the keys, where they have got to. Nothing is changed here."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.serializers import CheckpointKeyOut, CheckpointOut, CheckpointStatusOut
from apps.audit.models import AuditCheckpoint
from apps.audit.services.checkpoints import configured_keys, overview
from apps.common.api.views import KindViewSet
from apps.common.authorise import require
from apps.common.context import current_scope


class AuditCheckpointsViewSet(ListModelMixin, KindViewSet):
    """Checkpoints sign the ends of all chains, those of every tenant, so they are a superuser's to see; the keys are an auditor's."""

    model = AuditCheckpoint
    kind = "audit"
    slug_field = None
    serializer_class = CheckpointOut
    ordering_fields = ("number",)

    def authorise(self, request: Request) -> None:
        """Ask for `audit.admin` above all tenants, for the keys for `audit.read`."""
        if self.action == "keys":
            scope = current_scope()
            require("audit.read", tenant_id=scope.tenant_id if scope else None, kind="audit")
        elif self.action is not None:
            require("audit.admin", tenant_id=None, kind="audit", object_id="log", label="audit log")

    def rows(self) -> QuerySet[Any]:
        """Return those that are kept here (30 days)."""
        return AuditCheckpoint.objects.order_by("-number")

    @extend_schema(responses=CheckpointKeyOut(many=True), filters=False, operation_id="audit_checkpoint_keys")
    @action(detail=False, methods=["get"], pagination_class=None)
    def keys(self, request: Request) -> Response:
        """Return the public halves of the keys, the signing one first. Keep them elsewhere: they prove a checkpoint without this machine."""
        keys = configured_keys()
        found = [{"id": name, "public_key": text, "newest": name == keys.newest} for name, text in keys.published.items()]
        return Response(CheckpointKeyOut(found, many=True).data)

    @extend_schema(responses=CheckpointStatusOut, filters=False, operation_id="audit_checkpoint_status")
    @action(detail=False, methods=["get"], pagination_class=None)
    def status(self, request: Request) -> Response:
        """Return the last checkpoint's number and how far each place has got them."""
        return Response(CheckpointStatusOut(overview()).data)
