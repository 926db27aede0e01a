"""Fixtures of the end-to-end tests: one hostile server and one installation of a kind for a whole module."""

import contextlib
import secrets
from collections.abc import Callable, Iterator

import pytest

from tests import migrated, services
from tests.e2e.rogue import Rogue
from tests.e2e.support import serving_memory
from tests.product import Product


@pytest.fixture(scope="module")
def rogue() -> Iterator[Rogue]:
    """A hostile HTTP server that this module's tests share."""
    with Rogue() as it:
        yield it


Start = Callable[..., Product]


@pytest.fixture(scope="module")
def start_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`start_product` for a module: `start_for_module("sqlite" | "postgres", first=…, has=…, **options of Product)`.

    With `first`, the new one is part of the same installation.
    """
    with contextlib.ExitStack() as stack:

        def start(database: str, *, first: Product | None = None, has: str = "all", **options) -> Product:
            if first is not None:
                names = {"DATABASE_URL": "database_url", "REDIS_URL": "redis_url"}
                options |= {names[name]: first.environment[name] for name in names if name in first.environment}
                options |= {"key": first.key, "password": first.password}
                home = first.home
            else:
                home = tmp_path_factory.mktemp("installation") / "home"
                shared = services.common_directory(tmp_path_factory)
                if database == "postgres":
                    name = f"e_{secrets.token_hex(6)}"
                    options |= migrated.on_postgres(home, name, shared, has=has)
                    options["redis_url"] = services.empty_redis()
                    stack.callback(services.postgres().drop, name)
                else:
                    options |= migrated.on_sqlite(home, shared, has=has)
            product = Product(home, **options)
            stack.callback(product.destroy)
            product.start(within=90)
            stack.callback(product.stop)
            return product

        yield start


@pytest.fixture
def memory(shared_product: Product) -> Iterator[None]:
    """Fail when the product keeps more than 50 MB of what a test threw at it."""
    before = serving_memory(shared_product)
    yield
    grown = serving_memory(shared_product) - before
    assert grown < 50 * 1024 * 1024, f"grown by {grown / 1024 / 1024:.0f} MB"
