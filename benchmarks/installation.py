"""A product made ready to be measured: servers registered, and as much beside them as wanted."""

import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.product import Product


def api(product: Product, method: str, path: str, body: Any = None) -> Any:
    """Call the REST API of a product. Raises RuntimeError with the answer when it refuses."""
    parts = urlsplit(product.base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {**product.headers, "Content-Type": "application/json"}
    connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]!r}")
    return json.loads(text) if text else None


def register(product: Product, slug: str, **settings: Any) -> None:
    """Register a server and wait until its tools are there."""
    api(product, "POST", "servers/", {"slug": slug, **settings})
    deadline = time.monotonic() + 30
    while not api(product, "GET", f"tools/?server={slug}")["results"]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{slug} was not discovered: {api(product, 'GET', f'servers/{slug}/')}")
        time.sleep(0.1)


def stdio_settings(root: Path) -> dict[str, Any]:
    """Return the settings of the trivial stdio server."""
    return {"transport": "stdio", "command": sys.executable, "args": ["-m", "benchmarks.stdio_server"], "cwd": str(root)}
