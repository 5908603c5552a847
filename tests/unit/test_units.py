"""Quantities, durations and shares: what they amount to, and what they are not."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.asyncapi.units import parse_duration, parse_quantity, parse_share


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", "0"),
        ("1", "1"),
        ("200m", "0.2"),
        ("1.5", "1.5"),
        (".5", "0.5"),
        ("1.", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("1k", "1000"),
        ("1Ki", "1024"),
        ("2.5Gi", "2684354560"),
        ("1G", "1000000000"),
        ("1E", "1e18"),
        ("1Ei", "1152921504606846976"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("5e-2", "0.05"),
        ("3u", "0.000003"),
        ("3n", "3e-9"),
    ],
)
def test_quantity(text: str, amount: str) -> None:
    """Kubernetes' notation, exactly."""
    assert parse_quantity(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "m", "1 Mi", "1,5", "1e", "0x1", "1KB", "1ki", "٣", "1e999"])
def test_no_quantity(text: str) -> None:
    """Nothing else is taken."""
    with pytest.raises(ValueError, match=r"must be a number|unknown suffix"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", "0"),
        ("60s", "60"),
        ("5m", "300"),
        ("1h30m", "5400"),
        ("1.5h", "5400"),
        ("-1m", "-60"),
        ("+10s", "10"),
        ("100ms", "0.1"),
        ("1us1µs1μs", "0.000003"),
        ("1ns", "1e-9"),
        ("1m1m", "120"),
    ],
)
def test_duration(text: str, seconds: str) -> None:
    """Go's notation, exactly."""
    assert parse_duration(text) == Decimal(seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a duration"),
        ("s", "must be a duration"),
        ("1s ", "unknown unit 's '"),
        ("60", "has no unit"),
        ("1m30", "has no unit"),
        ("1d", "unknown unit 'd'"),
        ("1.2.3s", "no unit"),
        ("--1s", "must be a duration"),
        ("9223372037s", "is too long"),
    ],
)
def test_no_duration(text: str, message: str) -> None:
    """What Go refuses, by name."""
    with pytest.raises(ValueError, match=message):
        parse_duration(text)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    """Hours, minutes and seconds."""
    text = f"{hours}h{minutes}m{seconds}s"

    assert parse_duration(text) == hours * 3600 + minutes * 60 + seconds


def test_share() -> None:
    """A number or a percentage."""
    assert parse_share("25%") == 25
    assert parse_share("100%") == 100
    assert parse_share("300") == 300
    for text in ("101%", "-1", "1.5", "%", "", "9999999999"):
        with pytest.raises(ValueError, match="must be a whole number of replicas"):
            parse_share(text)
