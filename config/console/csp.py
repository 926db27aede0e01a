"""The console's own Content-Security-Policy.

unfold runs Alpine's standard build, which compiles its expressions: `unsafe-eval` is needed, here and nowhere else. Scripts come
from this origin or carry the nonce of the answer; there is no inline handler. Styles may be inline: unfold writes its colours
into the page, and its scroll areas and charts set sizes.
"""

from django.http import HttpRequest, HttpResponseBase

POLICY: dict[str, list[str]] = {
    "default-src": ["'self'"],
    "script-src": ["'self'", "'unsafe-eval'"],
    "style-src": ["'self'", "'unsafe-inline'"],
    "img-src": ["'self'", "data:"],
    "font-src": ["'self'"],
    "connect-src": ["'self'"],
    "object-src": ["'none'"],
    "base-uri": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
}


def console_policy(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Give an answer of the console its policy; with a nonce where the page asked for one."""
    from csp.constants import NONCE

    policy: dict[str, list[object]] = {name: list(values) for name, values in POLICY.items()}
    policy["script-src"].append(NONCE)
    response._csp_config = policy  # type: ignore[attr-defined]
    return response
