"""`manage.py explain_access --key PREFIX | --user NAME`: what somebody gets at the gateway, by which rules, and what not, and why."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts import selectors
from apps.accounts.api.people import visible_user
from apps.accounts.management.base import command_line
from apps.common.context import current_actor, tenant_scope
from apps.common.crypto.tokens import parse_prefix
from apps.gateway.adapters.builder import SnapshotBuilder
from apps.gateway.adapters.sight import look
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.services.sight import Sight, seen_now


class Command(BaseCommand):
    """Explains what a key or a user may use."""

    help = "Show the lists that a key or a user gets at /mcp or a toolset, the rule behind each entry, and what is refused and why."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        who = parser.add_mutually_exclusive_group(required=True)
        who.add_argument("--key", help="prefix or id of an API key")
        who.add_argument("--user", help="name or id of a user")
        parser.add_argument("--tenant", default="default", help="slug of the tenant that the user works in (default: default)")
        parser.add_argument("--toolset", default="", help="slug; without it, what stands at /mcp")
        parser.add_argument("--json", action="store_true", help="everything, as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Build the picture that a data plane would have now, and look at it; raises CommandError."""
        with command_line():
            store = SnapshotStore()
            store.swap(SnapshotBuilder(store).read_all())
            viewer = partial(look, store)
            if options["key"]:
                key = selectors.api_key(parse_prefix(options["key"]) or options["key"])
                sight = seen_now(api_key=key, toolset=options["toolset"], viewer=viewer)
            else:
                user, tenant = visible_user(options["user"]), selectors.tenant(options["tenant"])
                with tenant_scope(tenant.pk, current_actor()):
                    sight = seen_now(user=user, toolset=options["toolset"], viewer=viewer)
        self.stdout.write(json.dumps(asdict(sight), indent=2) if options["json"] else in_words(sight))


def in_words(sight: Sight) -> str:
    """Return the explanation as text."""
    lines = [f"{sight.principal} at {sight.path}"]
    counts = [f"{number} {kind}{'' if number == 1 else 's'}" for kind, number in sight.counts.items() if number]
    lines.append(f"gets {', '.join(counts)}" if counts else f"gets nothing: {sight.empty}")
    lines += [f"  {one.name}  ({one.kind} of {one.server})  {_rule(sight, one.rule)}" for one in sight.listed]
    if sight.missing:
        lines.append("would get, but for an operator's word")
        lines += [f"  {one.name}  ({one.kind} of {one.server})  {one.why}" for one in sight.missing]
    if sight.refused:
        lines.append("does not get")
        lines += [
            f"  {one.name}  ({one.kind} of {one.server})  {one.reason}, {_rule(sight, one.rule)}" for one in sight.refused
        ]
    if sight.refused_left_out:
        lines.append(f"  and {sight.refused_left_out:,} more")
    lines += [f"{one.server} is {one.state}: calls may fail" for one in sight.trouble]
    return "\n".join(lines)


def _rule(sight: Sight, rule: str) -> str:
    words = sight.rules.get(rule)
    return f"{rule} ({words})" if words else rule
