"""Sends bodies one after the other, each tried again where the server says later; what it refuses ends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.series.http import Endpoint, Reply, Retries, TooLong, exchange, persisting


def sent(
    bodies: Iterable[tuple[bytes, int]], to: Endpoint, headers: Mapping[str, str], retries: Retries
) -> int:
    """Bodies with how many samples each has; returns how many were taken. Raises MW022 (no answer), MW023
    (refused), MW024 (what answers is no receiver)."""
    taken = 0
    for body, count in bodies:
        reply = _posted(body, to, headers, retries)
        if not 200 <= reply.status < 300:
            raise refused(to, reply, taken)
        taken += count
    return taken


def _posted(body: bytes, to: Endpoint, headers: Mapping[str, str], retries: Retries) -> Reply:
    try:
        return persisting(lambda: exchange(to, "POST", "", body, headers), retries)
    except TooLong as error:
        raise messages.GARBAGE.error(str(to), reason="the answer never ends", url=to) from error


def refused(to: Endpoint, reply: Reply, taken: int) -> MeshwiseError:
    """MW023 with the remedy for what it says."""
    words = reply.words.lower()
    if "out of bounds" in words or "too old" in words:
        remedy = (
            "it has newer points already, and takes older ones only with `out_of_order_time_window` in its "
            "configuration (storage: tsdb:); or `--format openmetrics` and `promtool tsdb create-blocks-from "
            "openmetrics`"
        )
    elif "out of order" in words or "duplicate sample" in words:
        remedy = "it has these series already: this study was exported to it before"
    elif reply.status in (404, 405):
        remedy = (
            "give the whole address, http://HOST:9090/api/v1/write or http://HOST:4318/v1/metrics; "
            "Prometheus takes it with `--web.enable-remote-write-receiver`"
        )
    elif reply.status in (401, 403):
        remedy = "give credentials that may write there: `--auth FILE`"
    elif 300 <= reply.status < 400:
        remedy = "give the address that it leads to; redirects are not followed"
    else:
        remedy = "see its log"
    kept = f"; {taken:,} samples were taken before" if taken else ""
    return messages.REFUSED_BY_SERVER.error(
        str(to), status=f"HTTP {reply.status}", reason=reply.words + kept, remedy=remedy
    )
