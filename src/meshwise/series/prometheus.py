"""A Prometheus's HTTP API (also of what speaks it: Thanos, Mimir, VictoriaMetrics): range queries, by pieces
that are bounded in points and bytes.

Source: prometheus.io/docs/prometheus/latest/querying/api. A point of the answer is `[seconds, "text"]`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.series.http import TIMEOUT_S, Endpoint, Reply, Retries, TooLong, exchange, persisting

MOST_STEPS = 2000
"""Of one query; Prometheus itself refuses more than 11,000 points of a series."""
MOST_ANSWER_BYTES = 16 << 20
_FIRST_ATTEMPTS, _FIRST_TIMEOUT_S = 2, 15.0
"""Of the first query, which is answered at once if at all: a wrong address is told soon."""
_SMALLER = ("maximum resolution", "too many samples", "timed out", "timeout", "limit")
"""What a server says that would answer for less time."""


@dataclass(frozen=True)
class RangeSeries:
    """One series of an answer."""

    labels: Mapping[str, str]
    """Without its name."""
    t_ns: tuple[int, ...]
    values: tuple[float, ...]


@dataclass
class PrometheusApi:
    to: Endpoint
    retries: Retries = field(default_factory=Retries)

    def check(self) -> str:
        """The version of the server, empty where it does not tell. Raises MW022, MW023, MW024."""
        try:
            first = replace(self.retries, attempts=min(_FIRST_ATTEMPTS, self.retries.attempts))
            found = self._get("/api/v1/query", {"query": "1"}, first, _FIRST_TIMEOUT_S)
        except TooLong as error:
            raise self._garbage("a query for 1 is answered with more than is read") from error
        if not isinstance(found, dict) or found.get("resultType") not in ("scalar", "vector"):
            raise self._garbage("a query for 1 is not answered with a number")
        try:
            told = self._get("/api/v1/status/buildinfo", {})
        except TooLong:
            return ""
        except MeshwiseError as error:  # others than Prometheus have no such page
            if error.code not in (messages.REFUSED_BY_SERVER.code, messages.GARBAGE.code):
                raise
            return ""
        return str(told.get("version", "")) if isinstance(told, dict) else ""

    def range(self, query: str, begin_ns: int, end_ns: int, step_ns: int) -> Iterator[list[RangeSeries]]:
        """The answer by pieces of time, each for all series, `end_ns` included. A piece that is too large is
        asked for again in halves. Raises MW022, MW023, MW024, MW025."""
        steps, at = MOST_STEPS, begin_ns
        while at <= end_ns:
            upto = min(end_ns, at + (steps - 1) * step_ns)
            try:
                piece = self._piece(query, at, upto, step_ns)
            except _Smaller as error:
                if steps == 1:
                    raise error.reason from error
                steps //= 2
                continue
            yield piece
            at = upto + step_ns

    def _piece(self, query: str, begin_ns: int, end_ns: int, step_ns: int) -> list[RangeSeries]:
        words = {
            "query": query,
            "start": _seconds(begin_ns),
            "end": _seconds(end_ns),
            "step": _seconds(step_ns),
        }
        try:
            data = self._get("/api/v1/query_range", words)
        except TooLong as error:
            most = f"{MOST_ANSWER_BYTES >> 20} MiB of one answer"
            raise _Smaller(messages.TOO_MUCH.error(str(self.to), most=most, reason=f"`{query}`")) from error
        except MeshwiseError as error:
            if error.code == messages.REFUSED_BY_SERVER.code and any(
                word in error.what.lower() for word in _SMALLER
            ):
                raise _Smaller(error) from error
            raise
        if (
            not isinstance(data, dict)
            or data.get("resultType") != "matrix"
            or not isinstance(data.get("result"), list)
        ):
            raise self._garbage("a range query is not answered with a matrix")
        found = [self._series(entry) for entry in data["result"]]
        if any(each.t_ns and not begin_ns <= each.t_ns[0] <= each.t_ns[-1] <= end_ns for each in found):
            raise self._garbage("points are of another time than was asked for")
        return found

    def _series(self, entry: Any) -> RangeSeries:
        try:
            labels, points = entry["metric"], entry["values"]
            if not all(isinstance(name, str) and isinstance(text, str) for name, text in labels.items()):
                raise TypeError("a label is no text")
            "".join(text for pair in labels.items() for text in pair).encode()  # half a surrogate is no text
            times = tuple(round(float(t_s) * 1000) * 1_000_000 for t_s, _ in points)
            values = tuple(float(text) for _, text in points if isinstance(text, str))
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise self._garbage(f"a series is none: {error}") from error
        if len(times) != len(values) or any(a >= b for a, b in pairwise(times)):
            raise self._garbage("the points of a series are not in the order of time")
        return RangeSeries({name: text for name, text in labels.items() if name != "__name__"}, times, values)

    def _get(
        self,
        path: str,
        words: Mapping[str, str],
        retries: Retries | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        query = f"?{urlencode(words)}" if words else ""
        reply = persisting(
            lambda: exchange(
                self.to,
                "GET",
                path + query,
                None,
                {"Accept": "application/json"},
                MOST_ANSWER_BYTES,
                timeout_s,
            ),
            retries or self.retries,
        )
        try:
            document = json.loads(reply.body, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            if not 200 <= reply.status < 300:
                raise self._refused(reply, reply.words) from error
            raise self._garbage(f"no JSON but: {reply.words}") from error
        if not isinstance(document, dict) or document.get("status") not in ("success", "error"):
            if not 200 <= reply.status < 300:
                raise self._refused(reply, reply.words)
            raise self._garbage("JSON without `status`")
        if document["status"] == "error" or not 200 <= reply.status < 300:
            raise self._refused(reply, str(document.get("error") or reply.words)[:300])
        return document.get("data")

    def _refused(self, reply: Reply, reason: str) -> MeshwiseError:
        if reply.status in (401, 403):
            remedy = "give credentials that may read there: `--auth FILE`"
        elif 300 <= reply.status < 400:
            remedy = "give the address that it leads to; redirects are not followed"
        elif reply.status == 404:
            remedy = "give the root of the API, as http://HOST:9090 (without /api/v1)"
        else:
            remedy = "see its log"
        return messages.REFUSED_BY_SERVER.error(
            str(self.to), status=f"HTTP {reply.status}", reason=reason, remedy=remedy
        )

    def _garbage(self, reason: str) -> MeshwiseError:
        return messages.GARBAGE.error(str(self.to), reason=reason, url=self.to)


class _Smaller(Exception):
    """The same is answered for less time, perhaps; `reason`: what to say if not."""

    def __init__(self, reason: MeshwiseError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _refuse(constant: str) -> float:
    raise ValueError(f"`{constant}` is no JSON")


def _seconds(t_ns: int) -> str:
    whole, rest = divmod(t_ns, 10**9)
    return f"{whole}.{rest // 10**6:03d}"


def usable(value: float) -> bool:
    """No mark of staleness, no infinity."""
    return math.isfinite(value)
