"""Tells whether a URI fits a URI template (RFC 6570), in linear time whatever the template says."""

import re
from functools import lru_cache

_EXPRESSION = re.compile(r"\{([+#./;?&]?)[^{}]*\}")
MAX_URI = 8192


@lru_cache(maxsize=4096)
def _parts(template: str) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Return the literals, and for each gap between them whether it may span path segments."""
    literals, spans = [], []
    position = 0
    for expression in _EXPRESSION.finditer(template):
        literals.append(template[position : expression.start()])
        spans.append(expression.group(1) != "")
        position = expression.end()
    literals.append(template[position:])
    return tuple(literals), tuple(spans)


def match_template(template: str, uri: str) -> bool:
    """Tell whether `uri` (at most 8,192 characters) could have been expanded from `template`.

    Every gap takes the shortest run that lets the next literal follow; a simple expression never spans `/`, `?` or `#`.
    """
    if len(uri) > MAX_URI:
        return False
    literals, spans = _parts(template)
    if not uri.startswith(literals[0]):
        return False
    position = len(literals[0])
    last = len(spans) - 1
    for index, spans_segments in enumerate(spans):
        literal = literals[index + 1]
        if index == last:
            end = len(uri) - len(literal)
            if end < position or not uri.endswith(literal):
                return False
        else:
            end = uri.find(literal, position)
            if end < 0:
                return False
        if not spans_segments and any(mark in uri[position:end] for mark in "/?#"):
            return False
        position = end + len(literal)
    return position == len(uri)
