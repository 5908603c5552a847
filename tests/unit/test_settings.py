"""The container's settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from project.settings import Settings


def test_come_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of cortex.yaml set them."""
    monkeypatch.setenv("ENABLE_METRICS", "true")
    monkeypatch.setenv("METRICS_NAMESPACE", "text")
    monkeypatch.setenv("MAX_TEXTS", "7")

    settings = Settings()

    assert (settings.enable_metrics, settings.metrics_namespace) == (True, "text")
    assert settings.max_texts == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_TEXTS", "0"), ("METRICS_NAMESPACE", "a-b"), ("ENABLE_METRICS", "perhaps")],
)
def test_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A value that makes no sense stops the start, with the setting's name."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError, match=name.lower()):
        Settings()
