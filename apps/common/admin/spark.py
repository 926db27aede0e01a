"""Sparklines: small inline SVG, drawn on the server, with the figures as text for readers who do not see them."""

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 240, 40


def sparkline(values: Sequence[float], *, label: str, marks: Sequence[float] = ()) -> SafeString:
    """Render values as bars, oldest first; `marks` (errors of the same buckets) stand in the same bars in the error colour."""
    if not values or not any(values):
        return format_html('<div class="sy-spark-empty">No calls in this period</div>')
    top = max(values)
    step = WIDTH / len(values)
    bars = []
    for index, value in enumerate(values):
        height = 0 if not value else max(1.5, value / top * (HEIGHT - 2))
        bad = marks[index] if index < len(marks) else 0
        bars.append((index * step, HEIGHT - height, max(step - 1.5, 1), height, "sy-spark-bar"))
        if bad:
            part = min(height, max(1.5, bad / top * (HEIGHT - 2)))
            bars.append((index * step, HEIGHT - part, max(step - 1.5, 1), part, "sy-spark-bad"))
    return format_html(
        '<svg class="sy-spark" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>',
        WIDTH,
        HEIGHT,
        label,
        format_html_join(
            "",
            '<rect x="{}" y="{}" width="{}" height="{}" class="{}"/>',
            ((f"{x:.1f}", f"{y:.1f}", f"{w:.1f}", f"{h:.1f}", css) for x, y, w, h, css in bars),
        ),
    )
