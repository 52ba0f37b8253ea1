"""Sizes of payloads as people write them: what they mean, and how they are refused."""

from __future__ import annotations

import pytest

from meshwise.core.errors import MeshwiseError
from meshwise.study.load.payload import MAX_PAYLOAD_BYTES, Family, Payload, is_distribution, parse_payload


@pytest.mark.parametrize(
    ("text", "payload", "again"),
    [
        ("uniform(1KiB, 64KiB)", Payload(Family.UNIFORM, (1024, 65536)), "uniform(1KiB, 64KiB)"),
        (" uniform( 0B;1000B ) ", Payload(Family.UNIFORM, (0, 1000)), "uniform(0B, 1000B)"),
        (
            "lognormal(1KiB, 1.5)",
            Payload(Family.LOGNORMAL, (1024, MAX_PAYLOAD_BYTES), (1.5,)),
            "lognormal(1KiB, 1.5)",
        ),
        (
            "lognormal(1KB, 2, 1MiB)",
            Payload(Family.LOGNORMAL, (1000, 2**20), (2.0,)),
            "lognormal(1000B, 2, 1MiB)",
        ),
        (
            "empirical(4KiB: 3, 200B: 6.5, 10MiB)",
            Payload(Family.EMPIRICAL, (200, 4096, 10 * 2**20), (6.5, 3.0, 1.0)),
            "empirical(200B: 6.5, 4KiB: 3, 10MiB: 1)",
        ),
    ],
)
def test_what_is_understood_and_how_it_is_written(text: str, payload: Payload, again: str) -> None:
    assert is_distribution(text)
    assert parse_payload(text) == payload
    assert str(payload) == again
    assert parse_payload(again) == payload


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("normal(1KiB, 2)", "not a size or a distribution"),
        ("uniform", "not a size or a distribution"),
        ("uniform(1KiB)", "two sizes"),
        ("uniform(2KiB, 1KiB)", "more than the most"),
        ("uniform(1, 2)", "is not a size"),
        ("uniform(1KiB, 11MiB)", "goes beyond 10MiB"),
        ("lognormal(1KiB)", "a median, sigma"),
        ("lognormal(1KiB, wide)", "`wide` is not a number"),
        ("lognormal(1KiB, 0)", "sigma must be above 0"),
        ("lognormal(1KiB, 9)", "sigma must be above 0"),
        ("lognormal(0B, 1)", "median must be above 0"),
        ("lognormal(2KiB, 1, 1KiB)", "within the bound"),
        ("empirical()", "1 to 64 sizes"),
        ("empirical(1KiB: 0)", "weight must be above 0"),
        ("empirical(1KiB: -1)", "not a number"),
        ("empirical(1KiB: 1, 1024B: 2)", "1KiB stands there twice"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(MeshwiseError) as caught:
        parse_payload(text)
    assert caught.value.code == "MW105"
    assert reason in caught.value.what
    assert "lognormal(1KiB, 1.5)" in caught.value.remedy


def test_a_size_is_no_distribution() -> None:
    assert not is_distribution("1KiB")
    assert not is_distribution(" 10 MiB")


def test_means_and_bounds() -> None:
    assert parse_payload("uniform(100B, 300B)").mean_bytes == 200
    assert parse_payload("empirical(100B: 3, 500B: 1)").mean_bytes == 200
    # e^(1/8) = 1.1331 for sigma 1/2; the bound is far beyond
    assert parse_payload("lognormal(1000B, 0.5)").mean_bytes == pytest.approx(1133.1, abs=0.1)
    cut = parse_payload("lognormal(1KiB, 3, 2KiB)")
    assert cut.largest_bytes == cut.quantile(0.9) == 2048
    assert 1024 < cut.mean_bytes < 2048


def test_quantiles_of_weighted_sizes() -> None:
    payload = parse_payload("empirical(1B: 1, 2B: 2, 3B: 1)")
    assert [payload.quantile(share) for share in (0.01, 0.24, 0.26, 0.74, 0.76, 0.999)] == [1, 1, 2, 2, 3, 3]
