"""Who the users inside a world are outside of it: a pure function from what this machine knows to uid maps.

As on a cluster, a sidecar runs as 1337 or 2102, and a database as a user of its own. Were these the
machine's uids too, any user who happens to have one could read the sidecar's keys through /proc and signal
it. So root's world has a user namespace in which root is root, and every other uid up to 65535 is one of a
range that no user outside has. The users who have 1 to 65535 outside stand where that range would be: their
files stay reachable, as for root outside.

    inside            outside
    0                 0
    1 ... 65535       BASE+1 ... BASE+65535       the world's own
    BASE+1 ...        1 ... 65535                 the machine's users
    all others        themselves

The map of groups is the same. Source: user_namespaces(7); BASE is from the range that systemd's
UIDS-GIDS.md lists as unused.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

OWN_USERS = 65536
"""As many as a container has; root is the first and is shared."""
_FIRST_BASE, _LAST_BASE = 0x7000_0000, 0x7FFD_0000


@dataclass(frozen=True)
class Extent:
    """One line of a uid_map: `count` ids from `inside` on are those from `outside` on."""

    inside: int
    outside: int
    count: int

    def __str__(self) -> str:
        return f"{self.inside} {self.outside} {self.count}"


def extents(uid_map: str) -> tuple[Extent, ...]:
    """Of the text of /proc/PID/uid_map."""
    lines = (map(int, line.split()) for line in uid_map.splitlines())
    return tuple(Extent(*line) for line in lines)


def known_below(uid_map: str) -> int:
    """All ids from 0 up to this one (not included) are known in a namespace with that map."""
    end = 0
    for extent in sorted(extents(uid_map), key=lambda extent: extent.inside):
        if extent.inside > end:
            break
        end = max(end, extent.inside + extent.count)
    return end


def world_map(end: int, taken: Iterable[range]) -> tuple[Extent, ...]:
    """The map of a world in a namespace that knows the ids below `end`, of which `taken` are somebody's.

    A namespace without a free range (a container of 65536 uids) maps all to themselves: what the user
    namespace by itself forbids stays forbidden, which is reading through /proc.
    """
    somebody = tuple(taken)
    for base in range(_FIRST_BASE, _LAST_BASE + 1, OWN_USERS):
        own = range(base, base + OWN_USERS)
        if own.stop <= end and not any(_overlap(own, other) for other in somebody):
            return (
                Extent(0, 0, 1),
                Extent(1, base + 1, OWN_USERS - 1),
                Extent(OWN_USERS, OWN_USERS, base + 1 - OWN_USERS),
                Extent(base + 1, 1, OWN_USERS - 1),
                *((Extent(own.stop, own.stop, end - own.stop),) if end > own.stop else ()),
            )
    return (Extent(0, 0, end),)


def taken_here(root: Path = Path("/")) -> Iterator[range]:
    """Ids that are a user's or a group's of this machine, or that one may take for containers."""
    for user in pwd.getpwall():
        yield range(user.pw_uid, user.pw_uid + 1)
    for group in grp.getgrall():
        yield range(group.gr_gid, group.gr_gid + 1)
    for name in ("subuid", "subgid"):
        path = root / "etc" / name
        for line in path.read_text().splitlines() if path.exists() else ():
            _, _, numbers = line.partition(":")
            first, _, count = numbers.partition(":")
            if first.isdecimal() and count.isdecimal():
                yield range(int(first), int(first) + int(count))


def are_the_machines(uid_map: str) -> bool:
    """Whether an ordinary uid inside is the same user outside."""
    return any(
        extent.inside <= 1 < extent.inside + extent.count and extent.inside == extent.outside
        for extent in extents(uid_map)
    )


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop
