"""What the API reads and shows of tenants, people and keys."""

from rest_framework import serializers

from apps.accounts.models import APIKey, Membership, Role, Tenant, User
from apps.accounts.services.api_keys import LONGEST_OVERLAP, MOST_NETWORKS, OVERLAP_SECONDS
from apps.common.api.serializers import InputSerializer


class TenantOut(serializers.ModelSerializer[Tenant]):
    """A tenant."""

    class Meta:
        model = Tenant
        fields = ("id", "slug", "name", "active", "sample_payloads", "created_at", "updated_at")
        read_only_fields = fields


class TenantIn(InputSerializer):
    """A tenant to make."""

    slug = serializers.CharField(max_length=40)
    name = serializers.CharField(max_length=120, required=False, allow_blank=True)
    sample_payloads = serializers.BooleanField(required=False)


class TenantChange(InputSerializer):
    """What may be changed of a tenant."""

    slug = serializers.CharField(max_length=40, required=False)
    name = serializers.CharField(max_length=120, required=False)
    sample_payloads = serializers.BooleanField(required=False)


class RoleOut(serializers.ModelSerializer[Role]):
    """A role."""

    permissions = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Role
        fields = ("id", "tenant", "slug", "name", "permissions", "builtin", "created_at", "updated_at")
        read_only_fields = fields


class RoleIn(InputSerializer):
    """A role to make."""

    slug = serializers.CharField(max_length=40)
    name = serializers.CharField(max_length=80, required=False, allow_blank=True)
    permissions = serializers.ListField(child=serializers.CharField(max_length=60), required=False, max_length=200)


class RoleChange(InputSerializer):
    """What may be changed of a role."""

    slug = serializers.CharField(max_length=40, required=False)
    name = serializers.CharField(max_length=80, required=False)
    permissions = serializers.ListField(child=serializers.CharField(max_length=60), required=False, max_length=200)


class UserOut(serializers.ModelSerializer[User]):
    """A user; never anything of the password."""

    email = serializers.CharField(read_only=True)

    class Meta:
        model = User
        fields = (
            "id", "username", "email", "first_name", "last_name", "is_active", "is_staff", "is_superuser", "date_joined", "last_login",
        )  # fmt: skip
        read_only_fields = fields


class _UserFields(InputSerializer):
    email = serializers.EmailField(required=False, allow_blank=True)
    first_name = serializers.CharField(max_length=150, required=False, allow_blank=True)
    last_name = serializers.CharField(max_length=150, required=False, allow_blank=True)
    is_staff = serializers.BooleanField(required=False)
    is_superuser = serializers.BooleanField(required=False)
    password = serializers.CharField(max_length=256, required=False, allow_null=True, write_only=True, trim_whitespace=False)


class UserIn(_UserFields):
    """A user to make; `roles` are ids or slugs of roles of the tenant in force."""

    username = serializers.CharField(max_length=150)
    roles = serializers.ListField(child=serializers.CharField(max_length=60), required=False, max_length=50)


class UserChange(_UserFields):
    """What may be changed of a user."""

    username = serializers.CharField(max_length=150, required=False)
    current_password = serializers.CharField(
        max_length=256,
        required=False,
        write_only=True,
        trim_whitespace=False,
        help_text="With `password`, when a person changes their own.",
    )


class MembershipOut(serializers.ModelSerializer[Membership]):
    """Who has which role."""

    username = serializers.CharField(source="user.username", read_only=True)
    role_slug = serializers.CharField(source="role.slug", read_only=True)

    class Meta:
        model = Membership
        fields = ("id", "tenant", "user", "username", "role", "role_slug", "created_at")
        read_only_fields = fields


class MembershipIn(InputSerializer):
    """A role to give: a user by id or name, a role by id or slug."""

    user = serializers.CharField(max_length=150)
    role = serializers.CharField(max_length=60)


class APIKeyOut(serializers.ModelSerializer[APIKey]):
    """A key without its text, which is not stored."""

    owner_username = serializers.CharField(source="owner.username", read_only=True)
    state = serializers.SerializerMethodField()
    scopes = serializers.ListField(child=serializers.CharField(), read_only=True, allow_null=True)
    allowed_networks = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = APIKey
        fields = (
            "id", "tenant", "name", "prefix", "owner", "owner_username", "state", "inherits_owner", "scopes", "loopback_only",
            "allowed_networks", "former_prefix", "former_until", "rotated_at", "expires_at", "revoked_at", "last_used_at", "last_used_from", "last_used_client", "created_at", "updated_at",
        )  # fmt: skip
        read_only_fields = fields

    def get_state(self, key: APIKey) -> str:
        """Return `active`, `expired` or `revoked`."""
        return key.state


class APIKeyMade(APIKeyOut):
    """A key at the only moment at which its text is shown."""

    key = serializers.SerializerMethodField(help_text="Shown once.")

    class Meta:
        model = APIKey
        fields = (*APIKeyOut.Meta.fields, "key")
        read_only_fields = fields

    def get_key(self, key: APIKey) -> str:
        """Return the text."""
        return str(self.context["text"])


class APIKeyIn(InputSerializer):
    """A key to make; `owner` (id or name) is the caller's user where it is left out."""

    name = serializers.CharField(max_length=120)
    owner = serializers.CharField(max_length=150, required=False)
    inherits_owner = serializers.BooleanField(required=False)
    scopes = serializers.ListField(child=serializers.CharField(max_length=60), required=False, allow_null=True, max_length=200)
    loopback_only = serializers.BooleanField(required=False)
    allowed_networks = serializers.ListField(
        child=serializers.CharField(max_length=60), required=False, max_length=MOST_NETWORKS
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class APIKeyChange(InputSerializer):
    """What may be changed of a key."""

    name = serializers.CharField(max_length=120, required=False)
    inherits_owner = serializers.BooleanField(required=False)
    scopes = serializers.ListField(child=serializers.CharField(max_length=60), required=False, allow_null=True, max_length=200)
    loopback_only = serializers.BooleanField(required=False)
    allowed_networks = serializers.ListField(
        child=serializers.CharField(max_length=60), required=False, max_length=MOST_NETWORKS
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True)


class APIKeyRotation(InputSerializer):
    """How long the text that is replaced stays good."""

    overlap_seconds = serializers.IntegerField(
        min_value=0,
        max_value=LONGEST_OVERLAP,
        default=OVERLAP_SECONDS,
        help_text="The text before it is accepted so much longer.",
    )
