"""`manage.py discover`: discover servers now, in the foreground."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError

from apps.accounts.selectors import tenant as find_tenant
from apps.common.context import every_tenant
from apps.common.errors import SwitchyardError
from apps.servers.management.scope import operator
from apps.servers.selectors import get_server, servers
from apps.tools.services.discovery import TOTAL_SECONDS, DiscoverySummary, discover_server


class Command(BaseCommand):
    """Asks servers what they offer and prints what came of it; exit code 1 when one could not be asked."""

    help = "Discover servers now: ask each what it offers and bring the catalogue up to date."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("slug", nargs="*", help="slug or id of a server")
        parser.add_argument("--all", action="store_true", help="every server that is not paused")
        parser.add_argument("--tenant", help="slug of the tenant, where several have such servers")
        parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="time limit for each server")
        parser.add_argument("--json", action="store_true", help="print one JSON object per server")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        slugs = options["slug"]
        if bool(slugs) == options["all"]:
            raise CommandError("Name one or more servers, or give --all.")
        failed = 0
        with every_tenant(operator()):
            rows = self._rows(slugs, options["tenant"])
            if not rows:
                self.stdout.write("There is no server that is not paused.")
            for row in rows:
                failed += not self._discover(row, options["seconds"], as_json=options["json"])
        if failed:
            raise CommandError(f"{failed} of {len(rows)} could not be discovered.")

    def _rows(self, slugs: list[str], tenant: str | None) -> list[Any]:
        try:
            within = servers(tenant=find_tenant(tenant).pk if tenant else None).select_related("tenant")
            if not slugs:
                return list(within.filter(paused_at__isnull=True).order_by("tenant__slug", "slug"))
            found: list[Any] = []
            for slug in slugs:
                named = list(within.filter(slug=slug))
                if len(named) > 1:
                    places = ", ".join(sorted(row.tenant.slug for row in named))
                    raise CommandError(f"Several tenants have a server {slug} ({places}): give --tenant.")
                found += named or [get_server(slug)]
        except SwitchyardError as error:
            raise CommandError(error.detail) from None
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(f"The database cannot be read: start Switchyard once ({str(error).strip()}).") from error
        return found

    def _discover(self, row: Any, seconds: float, *, as_json: bool) -> bool:
        try:
            summary = discover_server(row, limit=seconds)
        except SwitchyardError as error:
            summary = DiscoverySummary(error=error.detail, error_type=error.slug)
        if as_json:
            self.stdout.write(json.dumps({"server": row.slug, "tenant": row.tenant.slug, **asdict(summary)}))
            return summary.ok
        if not summary.ok:
            self.stdout.write(self.style.ERROR(f"{row.slug}: {summary.error} ({summary.error_type})"))
            return False
        counts = ("added", "changed", "held", "removed", "unchanged", "waiting", "refused")
        words = (
            ", ".join(f"{getattr(summary, name)} {name}" for name in counts if getattr(summary, name)) or "it offers nothing"
        )
        self.stdout.write(self.style.SUCCESS(f"{row.slug}: {words} ({summary.era}, {summary.duration_ms / 1000:.1f} s)"))
        for kind, lists in summary.names.items():
            for change, names in lists.items():
                if change != "added":
                    self.stdout.write(f"  {kind} {change}: {', '.join(names)}")
        return True
