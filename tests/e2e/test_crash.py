"""`kill -9` of the serving process at ten random moments under load: nothing answered is missing from the log, nothing ran unrecorded."""

import pytest

from tests.e2e.crashing import crash


@pytest.mark.slow
def test_ten_kills_under_load(start_product, tmp_path):
    product = start_product()
    report = crash(product, tmp_path, kills=10)
    report.require()
    assert report.answered > report.kills
