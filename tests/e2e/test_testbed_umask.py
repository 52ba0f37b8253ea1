"""A study on real proxies under the umasks that hardened machines have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.people import ROOT
from tests.support.real_study import RealRun, need_real_proxies, private_directory


@pytest.fixture(autouse=True)
def directory() -> Iterator[Path]:
    need_real_proxies()
    with private_directory(ROOT, blocks=2, duration="200ms") as made:
        yield made


@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_a_study_runs_as_root_whatever_the_umask(directory: Path, umask: int) -> None:
    """The sidecars, which have uids of their own, read what root made for them."""
    run = RealRun(directory, ROOT, umask=umask)
    status, told = run.finish()
    assert status == 0, told
    assert [row["status"] for row in run.rows()] == ["ok"] * 4
    made = {path: path.stat().st_mode & umask for path in (run.out, *run.out.rglob("*"))}
    assert set(made.values()) == {0}, "what the user asked for stays as private as the user wants it"
