"""The scope in which a command of this app runs: who types it, and for which tenant."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError
from django.db import OperationalError, ProgrammingError

from apps.accounts import selectors as accounts
from apps.common.context import every_tenant, tenant_scope
from apps.common.errors import NotFound
from apps.common.shell import operator

__all__ = ("command_scope", "operator")


@contextmanager
def command_scope(tenant: str | None) -> Iterator[None]:
    """Open the scope of the tenant named by slug or id, else of the default tenant. Raises CommandError when there is none."""
    with every_tenant(operator()):
        try:
            row = accounts.tenant(tenant) if tenant else accounts.default_tenant()
        except NotFound:
            row = None
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(f"The database cannot be read: start Switchyard once ({str(error).strip()}).") from error
    if row is None:
        raise CommandError(f"There is no tenant {tenant}." if tenant else "There is no tenant yet: start Switchyard once.")
    with tenant_scope(row.pk, operator()):
        yield
