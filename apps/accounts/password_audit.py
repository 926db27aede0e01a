"""Records new passwords, by the hook that Django gives to password validators."""

from typing import Any

from apps.accounts.services.authentication import record_password_change


class RecordPasswordChange:
    """A password validator that accepts everything and is told when a password has been changed."""

    def validate(self, password: str, user: Any = None) -> None:
        """Accept it: the rules stand in the other validators."""

    def get_help_text(self) -> str:
        """Return no advice."""
        return ""

    def password_changed(self, password: str, user: Any = None) -> None:
        """Record it, without the password. Django calls this after the row has been saved."""
        if user is not None:
            record_password_change(user)
