"""Template tags of the console: states, figures, times and the tenant switcher."""

from datetime import datetime
from typing import Any

from django import template
from django.contrib.admin import site
from django.urls import reverse
from django.utils.safestring import SafeString

from apps.common import authorise
from apps.common.admin import format as formats
from apps.common.admin.difference import fold
from apps.common.admin.states import state_badge
from apps.common.context import current_scope

register = template.Library()

register.filter("count", formats.count)
register.filter("compact", formats.compact)
register.filter("milliseconds", formats.milliseconds)
register.filter("microseconds", formats.microseconds)
register.filter("size", formats.size)


@register.simple_tag
def state(value: str, title: str = "", href: str = "", word: str = "") -> SafeString:
    """Render a state as word, icon and colour."""
    return state_badge(value, title=title or "", href=href or "", word=word or "")


@register.filter
def ago(moment: datetime | None, never: str = "never") -> SafeString | str:
    """Render a time as its distance from now."""
    return formats.ago(moment, never=never)


@register.filter
def exact(moment: datetime | None) -> SafeString | str:
    """Render a time exactly."""
    return formats.exact(moment)


@register.filter
def may(request: Any, action: str) -> bool:
    """Tell whether the person may do something in the tenant in view: `{% if request|may:"grant.write" %}`."""
    if request is None or not request.user.is_active or not request.user.is_staff:
        return False
    scope = current_scope()
    return authorise.decide(action, tenant_id=scope.tenant_id if scope else None).allowed


@register.filter
def plural(number: int, noun: str) -> str:
    """Render `12 tools`; `noun` may be `tool` or `query,queries`."""
    one, _, many = noun.partition(",")
    return formats.plural(number, one, many)


@register.filter
def share(part: int, whole: int) -> str:
    """Render a part as percent of the whole."""
    return formats.share(part, whole)


@register.filter
def admin_page(opts: Any, page: str) -> str:
    """Return the URL name of a page of a model's admin."""
    return f"admin:{opts.app_label}_{opts.model_name}_{page}"


@register.filter
def folded(difference: Any) -> list[Any]:
    """Return a difference's lines with what is alike folded and what changed in a line marked."""
    return fold(difference.lines)


@register.inclusion_tag("console/parts/trail.html", takes_context=True)
def trail(context: Any) -> dict[str, Any]:
    """Render where one is: the list, and the object or the page in it; no internal words."""
    options = context.get("opts")
    if options is None:
        return {"parts": [{"title": context.get("title") or "Switchyard"}]}
    page = site._registry.get(options.model)
    words = getattr(page, "list_words", "") or str(options.verbose_name_plural)
    home = {
        "title": words[:1].upper() + words[1:],
        "href": reverse(f"admin:{options.app_label}_{options.model_name}_changelist"),
    }
    if context.get("cl"):
        return {"parts": [{"title": home["title"]}]}
    original = context.get("original")
    last = original or (getattr(page, "add_words", "") if context.get("add") else context.get("title"))
    return {"parts": [home, {"title": last or ""}]}


@register.inclusion_tag("console/parts/tenant_switch.html", takes_context=True)
def tenant_switch(context: Any) -> dict[str, Any]:
    """Render the tenant in view and, for those who may, the choice of another."""
    return {**(context.get("tenant_choice") or {}), "csrf_token": context.get("csrf_token")}
