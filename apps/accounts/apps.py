"""Django configuration of the accounts app."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Registers apps.accounts, and answers who acts and who asks."""

    name = "apps.accounts"
    label = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Give the policy its principals and the API its callers, and listen to sign-ins."""
        from apps.accounts import signals
        from apps.accounts.callers import Callers
        from apps.accounts.principals import principal_in_force
        from apps.common.api.identity import register_identity
        from apps.common.authorise import register_principal_source

        register_principal_source(principal_in_force)
        register_identity(Callers())
        signals.connect()
