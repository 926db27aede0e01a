"""The one error that ends a start with one line instead of a traceback."""


class CannotStart(Exception):
    """Switchyard cannot start; the message is one line that says why and what to do."""
