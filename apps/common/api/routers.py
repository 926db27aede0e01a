"""The routes of `/api/v1/`: each app has `api/routes.py` with `register(router)`, the composition root calls them."""

from rest_framework.routers import SimpleRouter


class ApiRouter(SimpleRouter):
    """A router whose addresses end with a slash and name objects `{id}`; `router.register("servers", ServerViewSet, "server")`."""
