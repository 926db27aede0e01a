"""The OpenAPI document against the product that runs: schemathesis makes requests from it, valid ones and others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.support import made, rest
from tests.factories import unique
from tests.product import ROOT

SECONDS = 20
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance",
    "negative_data_rejection", "unsupported_method", "allow_header_conformance", "ignored_auth", "status_is_listed", "refusals_are_problems",
)  # fmt: skip
OF_ITSELF = (
    ("PATCH", "/api/v1/api-keys/{id}/"), ("DELETE", "/api/v1/api-keys/{id}/"), ("POST", "/api/v1/api-keys/{id}/revoke/"),
    ("POST", "/api/v1/api-keys/{id}/rotate/"),
    ("PATCH", "/api/v1/users/{id}/"), ("DELETE", "/api/v1/users/{id}/"), ("POST", "/api/v1/users/{id}/deactivate/"),
    ("POST", "/api/v1/tenants/{id}/deactivate/"), ("PATCH", "/api/v1/tenants/{id}/"),
)  # fmt: skip
"""Operations with which the run would shut itself out."""


@pytest.mark.slow
def test_the_product_answers_as_its_document_says(own_product, tmp_path: Path):
    tenant = made(rest(own_product, "POST", "tenants/", {"slug": unique("fuzz")[:40]}))["slug"]
    key = made(rest(own_product, "POST", "api-keys/", {"name": "fuzz", "inherits_owner": True}, tenant=tenant))["key"]
    command = [
        str(Path(sys.executable).parent / "schemathesis"), "run", f"{own_product.base_url}/api/schema/?format=json",
        "--header", f"Authorization: Bearer {key}", "--phases", "coverage,fuzzing", "--max-time", str(SECONDS), "--max-examples", "5",
        "--no-shrink", "--continue-on-failure", "--no-color", "--checks", ",".join(CHECKS), "--request-timeout", "30", "--warnings", "off",
    ]  # fmt: skip
    for method, path in OF_ITSELF:
        command += ["--exclude-name", f"{method} {path}"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.api.fuzz_checks", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SECONDS * 3, check=False
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    # It was let in to the end, and the product still serves.
    assert rest(own_product, "GET", "servers/", key=key).status == 200
