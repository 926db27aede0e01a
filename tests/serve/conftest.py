"""Fixtures of the tests of the processes."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import migrated, services
from tests.product import ROOT, Product


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Product:
    """A home that was prepared once and the credentials made then; never started."""
    product = Product(tmp_path_factory.mktemp("prepared") / "home")
    shared = tmp_path_factory.getbasetemp()
    migrated.fill_home(product.home, shared.parent if services.WORKER else shared)
    subprocess.run(
        [sys.executable, "manage.py", "bootstrap"], cwd=ROOT, env=product.environment, check=True, stdout=subprocess.DEVNULL
    )
    return product


@pytest.fixture
def start_trial(start_product, prepared, tmp_path):
    """`start_product` on SQLite with the small application of these tests, in a copy of the prepared home unless one is given."""

    def start(home: Path | None = None, **options):
        if home is None:
            home = tmp_path / f"home-{len(list(tmp_path.iterdir()))}"
            shutil.copytree(prepared.home, home)
            options = {"key": prepared.key, "password": prepared.password, **options}
        environment = {"PYTHONPATH": ".", **options.pop("environment", {})}
        settings = "tests.serve.trial.settings"
        return start_product(database="sqlite", settings=settings, home=home, environment=environment, **options)

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
