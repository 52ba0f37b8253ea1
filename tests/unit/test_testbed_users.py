"""Which users of the machine the users of a world are."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshwise.testbed.local.users import (
    OWN_USERS,
    Extent,
    are_the_machines,
    extents,
    known_below,
    taken_here,
    world_map,
)

WHOLE = 2**32 - 1
BASE = 0x7000_0000


def outside(uid: int, lines: tuple[Extent, ...]) -> int:
    """As the kernel translates; every uid is in one extent and no more."""
    [found] = [each.outside + uid - each.inside for each in lines if 0 <= uid - each.inside < each.count]
    return found


@pytest.mark.parametrize("taken", [[], [range(BASE + 5, BASE + 6)], [range(1000, BASE + 2 * OWN_USERS)]])
def test_users_inside_are_nobody_outside_and_everybody_outside_has_a_place(taken: list[range]) -> None:
    lines = world_map(WHOLE, taken)
    assert outside(0, lines) == 0
    for uid in (1, 99, 1337, 2102, 65534, 65535):
        assert outside(uid, lines) >= BASE
        assert not any(outside(uid, lines) in each for each in taken)
        assert outside(outside(uid, lines), lines) == uid, "the machine's user of that uid stays reachable"
    for uid in (65536, 100_000, BASE, WHOLE - 1):
        assert outside(uid, lines) == uid
    assert sum(each.count for each in lines) == WHOLE
    assert not are_the_machines("\n".join(map(str, lines)))


@pytest.mark.parametrize(("end", "taken"), [(65536, []), (WHOLE, [range(1, WHOLE)])])
def test_where_no_range_is_free_everybody_is_himself(end: int, taken: list[range]) -> None:
    assert world_map(end, taken) == (Extent(0, 0, end),)
    assert are_the_machines(str(Extent(0, 0, end)))


@pytest.mark.parametrize(
    ("uid_map", "end"),
    [
        ("         0          0 4294967295\n", WHOLE),
        ("         0     100000      65536\n", 65536),
        ("1 100000 65535\n0 1000 1\n", 65536),
        ("0 1000 1\n", 1),
        ("5 5 10\n", 0),
        ("", 0),
    ],
)
def test_what_a_namespace_knows_from_zero_on(uid_map: str, end: int) -> None:
    assert known_below(uid_map) == end
    assert sum(each.count for each in extents(uid_map)) == sum(
        int(line.split()[2]) for line in uid_map.splitlines()
    )


def test_ranges_for_containers_are_taken(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/subuid").write_text("ann:1879048192:65536\nbroken\n\n")
    found = list(taken_here(tmp_path))
    assert range(BASE, BASE + OWN_USERS) in found
    assert range(1) in found, "root of /etc/passwd"
