"""Fixtures for the whole suite."""

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests import engines, migrated, services
from tests.product import Product

_PRODUCT = {"product", "shared_product", "own_product", "start_product", "postgres_url", "redis_url"}


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Mark the tests that were found, before a pass chooses by marks; put those that it chose into order."""
    _mark(items)
    yield
    _long_modules_first(items)


def _long_modules_first(items: list[pytest.Item]) -> None:
    """Put modules with slow tests first, then those with many: what comes last must not keep one process busy while others have nothing to do."""
    sizes: Counter[str] = Counter()
    slow = set()
    for item in items:
        module = item.nodeid.partition("::")[0]
        sizes[module] += 1
        if item.get_closest_marker("slow"):
            slow.add(module)

    def place(item: pytest.Item) -> tuple[bool, int]:
        module = item.nodeid.partition("::")[0]
        return module not in slow, -sizes[module]

    items.sort(key=place)


def _mark(items: list[pytest.Item]) -> None:
    """Let every test that uses the database use all of them: the audit log has one of its own on SQLite.

    A test that uses neither a database nor a running product depends on neither: the pass on PostgreSQL leaves it out.
    """
    for item in items:
        marker = item.get_closest_marker("django_db")
        names = set(getattr(item, "fixturenames", ()))
        if marker is None and not {"db", "transactional_db"} & names:
            if not names & _PRODUCT:
                item.add_marker(pytest.mark.once)
            continue
        if marker is None or ("databases" not in marker.kwargs and len(marker.args) < 3):
            arguments, keywords = (marker.args, marker.kwargs) if marker else ((), {})
            item.add_marker(pytest.mark.django_db(*arguments, **{**keywords, "databases": "__all__"}), append=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty `SWITCHYARD_HOME`."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    return engines.free_port()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The address of an empty database on real PostgreSQL."""
    name = f"t_{secrets.token_hex(6)}"
    yield services.postgres().create(name)
    services.postgres().drop(name)


@pytest.fixture
def redis_url() -> str:
    """The address of an empty database on a real server of the Redis protocol."""
    return services.empty_redis()


StartProduct = Callable[..., Product]


@pytest.fixture
def start_product(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProduct]:
    """A function that starts a real Switchyard: `start_product(database="sqlite"|"postgres", role="all", …)`.

    Without `database` it runs on what the pass runs on. It is one that was served before, with credentials that it has in common
    with others; `has="tables"` gives one that was not, `has="nothing"` an empty database. Further arguments are those of
    `tests.product.Product`; pass `home`, `key` and the addresses of the first to make the next one part of the same
    installation. Each is stopped by SIGTERM at the end, and no process may be left.
    """
    products: list[Product] = []
    databases: list[str] = []

    def start(
        *,
        database: str = services.DATABASE,
        home: Path | None = None,
        has: str = "all",
        wait: bool = True,
        within: float = 120.0,
        **options,
    ) -> Product:
        place = home or tmp_path / f"product-{len(products)}"
        if database == "postgres" and "database_url" not in options:
            databases.append(f"p_{secrets.token_hex(6)}")
            options = {
                **migrated.on_postgres(place, databases[-1], services.common_directory(tmp_path_factory), has=has),
                **options,
            }
            options.setdefault("redis_url", services.empty_redis())
        elif database == "sqlite" and not place.exists():
            options = {**migrated.on_sqlite(place, services.common_directory(tmp_path_factory), has=has), **options}
        product = Product(place, **options)
        products.append(product)
        return product.start(wait=wait, within=within)

    yield start
    failures = []
    for product in reversed(products):
        try:
            product.stop()
        except AssertionError as error:
            failures.append(str(error))
    for name in databases:
        services.postgres().drop(name)
    assert not failures, "\n".join(failures)


@pytest.fixture
def product(request: pytest.FixtureRequest, start_product: StartProduct) -> Product:
    """A running Switchyard of this test's own; parametrise indirectly with the options of `start_product`."""
    return start_product(**getattr(request, "param", {}))


@pytest.fixture(scope="session")
def shared_product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A running Switchyard that tests of this process share; leave it as you found it."""
    yield from _running(tmp_path_factory)


@pytest.fixture(scope="module")
def own_product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A running Switchyard of one module alone, for tests that need it as new or leave much behind."""
    yield from _running(tmp_path_factory)


def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    name = f"s_{secrets.token_hex(6)}"
    place = tmp_path_factory.mktemp("shared") / "home"
    postgres = services.DATABASE == "postgres"
    if postgres:
        options = {
            **migrated.on_postgres(place, name, services.common_directory(tmp_path_factory)),
            "redis_url": services.empty_redis(),
        }
    else:
        options = migrated.on_sqlite(place, services.common_directory(tmp_path_factory))
    product = Product(place, **options)
    try:
        product.start()
        yield product
        product.stop()
    finally:
        product.destroy()
        if postgres:
            services.postgres().drop(name)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium for playwright's `executable_path`; without one the test skips, in CI it fails."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found:
        return found
    advice = "no chromium here: apt-get install -y --no-install-recommends chromium fonts-liberation"
    if os.environ.get("CI"):
        pytest.fail(advice)
    pytest.skip(advice)
