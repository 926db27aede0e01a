"""What leaves the machine: checkpoints of a serving installation, exports by REST, and serving as a role that cannot change the log."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import psycopg
import pytest

from apps.audit.checkpoints.document import read
from tests import migrated, services
from tests.e2e.support import assert_serves, exchange, made, rest
from tests.product import ROOT, Product
from tests.support import eventually


def manage(product: Product, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command beside the product."""
    environment = {**product.environment, **changes}
    return subprocess.run([sys.executable, "manage.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_checkpoints_leave_while_it_serves_and_when_it_stops(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    file = tmp_path / "kept" / "checkpoints.jsonl"
    place = tmp_path / "home"
    product = Product(
        place,
        **migrated.on_sqlite(place, services.common_directory(tmp_path_factory)),
        environment={"SWITCHYARD_CHECKPOINTS": f"file://{file}", "SWITCHYARD_CHECKPOINT_SECONDS": "1"},
    )
    try:
        product.start()
        assert_serves(product)
        degraded = eventually(
            lambda: (found := json.loads(exchange(product, "GET", "/health/ready").body))["parts"].get("checkpoints") and found
        )
        assert degraded["status"] == "ready", "a place that is away stops no call"
        status = made(rest(product, "GET", "audit-checkpoints/status/"))
        assert status["targets"][0]["failing_since"]
        file.parent.mkdir()
        eventually(lambda: file.exists() and len(file.read_text().splitlines()) >= 3, within=90)
        numbers = [read(line).number for line in file.read_text().splitlines()]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        (key,) = made(rest(product, "GET", "audit-checkpoints/keys/"))
        body = {"checkpoints": [json.loads(line) for line in file.read_text().splitlines()], "public_keys": [key["public_key"]]}
        report = made(rest(product, "POST", "audit-events/verify/", body))
        assert report["ok"], report
        assert report["checkpoints"]["read"] >= 3
        assert product.stop() == 0
    finally:
        product.destroy()
    last = read(file.read_text().splitlines()[-1])
    rows = sum(seq for _, seq, _ in last.heads)
    checked = manage(product, "audit", "verify", "--checkpoints", str(file), "--json")
    found = json.loads(checked.stdout)
    assert found["ok"], found
    assert found["rows"] == rows, "the last checkpoint signed the very end"


def test_an_export_is_streamed_and_noted(shared_product: Product) -> None:
    assert_serves(shared_product)
    asked = urllib.request.Request(
        f"{shared_product.base_url}/api/v1/audit-events/export/?format=jsonl", headers=shared_product.headers
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        assert answer.headers["Content-Disposition"].startswith('attachment; filename="audit-')
        assert answer.headers["Content-Length"] is None
        rows = [json.loads(line) for line in answer]
    assert len(rows) > 3
    assert max(row["time"] for row in rows) == rows[0]["time"]

    def noted() -> bool:
        events = made(rest(shared_product, "GET", "audit-events/?event_type=audit.exported"))["results"]
        return bool(events) and made(rest(shared_product, "GET", f"audit-events/{events[0]['event_id']}/"))["details"][
            "rows"
        ] == len(rows)

    assert eventually(noted)
    assert rest(shared_product, "GET", "audit-events/export/?format=xml").status == 400
    assert rest(shared_product, "GET", "audit-events/export/").status == 400


@pytest.mark.skipif(services.DATABASE != "postgres", reason="SQLite has no roles")
def test_it_serves_as_a_role_that_cannot_change_the_log(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    engine, name, place = services.postgres(), "served_by_a_role", tmp_path / "home"
    options = migrated.on_postgres(place, name, services.common_directory(tmp_path_factory))
    product = Product(place, **options, redis_url=services.empty_redis())
    above = f"postgresql://postgres:{engine.password}@127.0.0.1:{engine.port}/{name}"
    with psycopg.connect(above, autocommit=True) as administrator:
        administrator.execute("CREATE ROLE serving LOGIN PASSWORD 'serving'")
        try:
            assert manage(product, "bootstrap").returncode == 0
            granted = manage(product, "audit", "grant", "serving")
            assert granted.returncode == 0, granted.stderr
            owner = product.environment["DATABASE_URL"]
            product.environment["DATABASE_URL"] = f"postgresql://serving:serving@127.0.0.1:{engine.port}/{name}"
            product.start()
            assert_serves(product)
            assert made(rest(product, "POST", "audit-events/verify/", {}))["ok"]
            assert product.stop() == 0
            assert manage(product, "audit", "verify", DATABASE_URL=owner).returncode == 0
        finally:
            product.destroy()
            administrator.execute("DROP OWNED BY serving")
            administrator.execute("DROP ROLE serving")
    engine.drop(name)
