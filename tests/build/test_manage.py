"""Which settings a management command runs with."""

import pytest

import manage


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("config.settings.development\n", "config.settings.development"),
        ("config.settings.production", "config.settings.production"),
        ("os\n", "config.settings.production"),
        ("", "config.settings.production"),
        (None, "config.settings.production"),
        (b"\xff\xfe", "config.settings.production"),
    ],
)
def test_those_that_the_home_was_last_served_with(tmp_path, monkeypatch, written, expected):
    monkeypatch.setenv("SWITCHYARD_HOME", str(tmp_path))
    if isinstance(written, str):
        (tmp_path / "settings").write_text(written)
    elif written is not None:
        (tmp_path / "settings").write_bytes(written)
    assert manage.settings_of_home() == expected
