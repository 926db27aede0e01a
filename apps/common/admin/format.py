"""Figures and times as people read them."""

from datetime import datetime

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

_SIZES = ("B", "kB", "MB", "GB", "TB")
NONE = "–"


def count(value: int | None) -> str:
    """Return a number with thousands separated, or a dash."""
    return NONE if value is None else f"{value:,}"


def compact(value: float | None) -> str:
    """Return a number in at most four characters and a letter: 980, 12.3k, 4.1M."""
    if value is None:
        return NONE
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scaled = value / (1e3 if letter == "k" else limit)
            return f"{scaled:.0f}{letter}" if scaled >= 100 else f"{scaled:.1f}".rstrip("0").rstrip(".") + letter
    return f"{value:,.0f}"


def plural(number: int, noun: str, many: str = "") -> str:
    """Return `1 tool`, `12 tools`."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def milliseconds(value: float | None) -> str:
    """Return a duration given in milliseconds: 0.4 ms, 12 ms, 1.8 s, 3 min."""
    if value is None:
        return NONE
    if value < 10:
        return f"{value:.1f} ms"
    if value < 1000:
        return f"{value:.0f} ms"
    if value < 60_000:
        return f"{value / 1000:.1f} s"
    return f"{value / 60_000:.0f} min"


def microseconds(value: float | None) -> str:
    """Return a duration given in microseconds."""
    return NONE if value is None else milliseconds(value / 1000)


def size(value: int | None) -> str:
    """Return a size in bytes with its unit (powers of 1000)."""
    if value is None:
        return NONE
    amount = float(value)
    for unit in _SIZES:
        if amount < 1000 or unit == _SIZES[-1]:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return NONE


def share(part: int | None, whole: int | None) -> str:
    """Return a part as percent of the whole, or a dash when there is nothing to compare."""
    if not whole or part is None:
        return NONE
    percent = 100 * part / whole
    if percent == 0:
        return "0 %"
    return f"{percent:.1f} %" if percent < 10 else f"{percent:.0f} %"


def seconds_in_words(seconds: float) -> str:
    """Return `45 s`, `12 min`, `3 h`, `5 days`."""
    seconds = abs(seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f} h"
    return plural(int(seconds // 86400), "day")


def ago(moment: datetime | None, *, never: str = "never") -> SafeString | str:
    """Render a time as its distance from now, with the exact one on hover; console.js puts both into the reader's zone."""
    if moment is None:
        return format_html('<span class="sy-quiet">{}</span>', never)
    distance = (timezone.now() - moment).total_seconds()
    words = f"{seconds_in_words(distance)} ago" if distance >= 0 else f"in {seconds_in_words(distance)}"
    if abs(distance) < 5:
        words = "just now"
    return format_html(
        '<time class="sy-time" datetime="{}" title="{}" data-ago>{}</time>',
        moment.isoformat(),
        moment.strftime("%Y-%m-%d %H:%M:%S UTC"),
        words,
    )


def exact(moment: datetime | None) -> SafeString | str:
    """Render a time exactly; console.js puts it into the reader's zone."""
    if moment is None:
        return NONE
    return format_html(
        '<time class="sy-time" datetime="{}" title="{}" data-exact>{}</time>',
        moment.isoformat(),
        moment.isoformat(timespec="microseconds"),
        moment.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


def change(now: float, before: float) -> tuple[str, str]:
    """Compare with the period before: the words and a direction (`up`, `down`, `same`, `new`)."""
    if before == 0:
        return ("no calls before", "new") if now else ("as before", "same")
    percent = 100 * (now - before) / before
    if abs(percent) < 1:
        return "as before", "same"
    words = f"{abs(percent):.0f} %" if abs(percent) < 1000 else f"{now / before:.0f} ×"
    return f"{'+' if percent > 0 else '−'}{words}", "up" if percent > 0 else "down"
