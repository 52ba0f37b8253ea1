"""A wait that takes longer than expected says what for: once, and only then."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from meshwise.core import process
from meshwise.core.notice import Notice


def test_it_says_once_what_is_waited_for_when_it_is_due(caplog: pytest.LogCaptureFixture) -> None:
    late = Notice("the server to answer", 5.0, after_s=0.0)
    late.look()
    late.look()
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for the server to answer, at most 5 s"
    ]
    assert late.left_s == float("inf")


def test_a_wait_that_is_short_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    early = Notice("the server", 5.0, after_s=60.0)
    early.look()
    assert caplog.records == []
    assert 50 < early.left_s <= 60


def test_a_program_that_does_not_say_its_version_is_named_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "Notice", lambda what, limit_s: Notice(what, limit_s, after_s=0.05))
    caplog.set_level(logging.WARNING)
    with pytest.raises(ValueError, match=r"did not end within 0\.3 s"):
        process.ask([sys.executable, "-c", "import time; time.sleep(60)"], 0.3)
    (said,) = caplog.records
    assert said.getMessage() == f"waiting for {sys.executable} to answer, at most 0.3 s"
    caplog.clear()
    assert process.ask(["/bin/echo", "envoy 1"], 30.0).text == "envoy 1\n"
