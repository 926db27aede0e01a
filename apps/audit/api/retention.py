"""How long payloads of the log stay, in the API."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from apps.audit.api.serializers import RetentionRuleOut
from apps.audit.domain import FAMILIES
from apps.audit.services.retention import LONGEST, retention_rules, set_retention
from apps.common.api.serializers import InputSerializer
from apps.common.api.views import ScopedAPIView
from apps.common.authorise import require


class RetentionIn(InputSerializer):
    """One rule."""

    family = serializers.ChoiceField(choices=sorted(FAMILIES))
    days = serializers.IntegerField(min_value=1, max_value=LONGEST, allow_null=True, help_text="Null: payloads stay for good.")
    tenant = serializers.UUIDField(required=False, help_text="For this tenant alone.")


class AuditRetentionViewSet(ScopedAPIView, ViewSet):
    """Rules are above all tenants: a superuser's to see and to set."""

    def authorise(self, request: Request) -> None:
        """Ask for `audit.admin` above all tenants."""
        if self.action is not None:
            require("audit.admin", tenant_id=None, kind="audit", object_id="log", label="audit log")

    @extend_schema(responses=RetentionRuleOut(many=True))
    def list(self, request: Request) -> Response:
        """Return the rules; what has none stays for good."""
        return Response(RetentionRuleOut(retention_rules(), many=True).data)

    @extend_schema(request=RetentionIn, responses={200: RetentionRuleOut(many=True)})
    def create(self, request: Request) -> Response:
        """Set or end a rule; returns all of them. Payloads that are of age go within minutes and do not come back."""
        given = RetentionIn(data=request.data).given()
        tenant = given.get("tenant")
        rules = set_retention(given["family"], given["days"], tenant=str(tenant) if tenant else "")
        return Response(RetentionRuleOut(rules, many=True).data)
