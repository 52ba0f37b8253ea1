"""The system calls that Python lacks, as far as they need no privilege."""

from __future__ import annotations

import os

import pytest

from meshwise.core import linux


@pytest.mark.parametrize(
    ("uid_map", "uid", "known"),
    [
        ("         0          0 4294967295\n", 1337, True),
        ("         0      65534          1\n", 0, True),
        ("         0      65534          1\n", 65534, False),
        ("0 1000 1\n1 100000 65536\n", 65534, True),
        ("0 1000 1\n1 100000 65536\n", 65537, False),
        ("", 0, False),
    ],
)
def test_which_uids_a_namespace_knows(uid_map: str, uid: int, known: bool) -> None:
    assert linux.maps_uid(uid, uid_map) is known


def test_a_refused_call_is_named() -> None:
    with pytest.raises(OSError, match="setns"):
        linux.setns(-1, linux.CLONE_NEWNET)


def test_a_refusal_in_the_helper_thread_reaches_the_caller() -> None:
    with pytest.raises(OSError, match="setns"):
        linux.in_network(-1, os.getpid)


def test_the_lifeline_tells_whether_the_parent_is_there() -> None:
    lifeline, hold = os.pipe()
    try:
        assert not linux.parent_is_gone(lifeline)
        os.close(hold)
        assert linux.parent_is_gone(lifeline)
    finally:
        os.close(lifeline)
