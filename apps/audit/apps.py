"""Django configuration of the audit app."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Registers apps.audit."""

    name = "apps.audit"
    label = "audit"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Keep outbox rows that the log has not taken over from being pruned."""
        from apps.audit.services.relay import relayed_up_to
        from apps.common.outbox_pruning import register_outbox_reader

        register_outbox_reader(relayed_up_to)
