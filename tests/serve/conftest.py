"""Fixtures of the tests of the processes."""

import functools
import shutil
from pathlib import Path

import pytest

from tests import migrated, services
from tests.product import Product


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Product:
    """A home that was served once and the credentials made then; not started here."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    return Product(home, **migrated.on_sqlite(home, services.common_directory(tmp_path_factory)))


@pytest.fixture
def start_trial(start_product, prepared, tmp_path):
    """`start_product` on SQLite with the small application of these tests, in a copy of the prepared home unless one is given: a new one has its tables alone."""

    def start(home: Path | None = None, **options):
        if home is None:
            home = tmp_path / f"home-{len(list(tmp_path.iterdir()))}"
            shutil.copytree(prepared.home, home)
            options = {"key": prepared.key, "password": prepared.password, **options}
        environment = {"PYTHONPATH": ".", **options.pop("environment", {})}
        settings = "tests.serve.trial.settings"
        return start_product(database="sqlite", has="tables", settings=settings, home=home, environment=environment, **options)

    return start


@pytest.fixture
def get():
    """A function that makes one GET request and returns the text of the answer."""
    import http.client

    def request(product, path: str, timeout: float = 30.0) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=timeout)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    return functools.partial(request)
