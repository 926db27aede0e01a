"""A small installation: a Django app with tasks of its own, settings and an ASGI application."""
