"""`/metrics` of a study that runs: what was told of it so far, as Prometheus's text, by a process of its own.

How its cost is kept away from what is measured:
- The study writes a line into a pipe that never blocks, of what it knows anyway for its own progress; what
  the pipe does not take is dropped and counted. It formats nothing and answers nobody.
- The process that answers runs outside the study's world under SCHED_IDLE: on a CPU that has anything else
  to do it does not run. It formats an answer at most once in half a second; who asks more often gets the
  last one.
- It listens on loopback only, and ends when the study's process does.

Source: Prometheus's text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwise.core import linux
from meshwise.series.lines import labels_of, number
from meshwise.series.openmetrics import label_text

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S = 0.5
MOST_CLIENTS = 16
_MOST_REQUEST_BYTES = 8192
_PATIENCE_S = 10.0
"""With a client that asks nothing, or does not take its answer."""
_HELP = {
    "run_info": ("gauge", "the study that runs"),
    "run_started_timestamp_seconds": ("gauge", "when it began"),
    "run_trials_planned": ("gauge", "trials of its design"),
    "run_trials_total": ("counter", "trials that ended, by status"),
    "run_rounds_total": ("counter", "rounds that are stored"),
    "run_executions_total": ("counter", "times that all processes were started"),
    "run_measuring": ("gauge", "1 while a round is warmed up or measured"),
    "run_current_info": ("gauge", "every arm of the round that is measured"),
    "run_current_elapsed_seconds": ("gauge", "since the beginning of its warm-up"),
    "run_current_requests": ("gauge", "requests of its first arm that are complete"),
    "run_current_requests_per_second": ("gauge", "the same by the time"),
    "run_current_response_p50_seconds": ("gauge", "median response time of its first arm so far"),
    "run_last_response_p50_seconds": ("gauge", "median response time of the last trial of a cell"),
    "run_last_response_p99_seconds": ("gauge", "P99 response time of the last trial of a cell"),
    "run_last_requests_per_second": ("gauge", "throughput of the last trial of a cell"),
    "run_last_error_ratio": ("gauge", "share of failed requests of the last trial of a cell"),
    "run_last_sidecar_cpu_seconds_per_request": (
        "gauge",
        "CPU of all sidecars per request in the last trial of a cell",
    ),
    "run_last_sidecar_memory_bytes": ("gauge", "resident memory of all sidecars in the last trial of a cell"),
    "run_last_trial_timestamp_seconds": ("gauge", "when the last trial of a cell was stored"),
    "run_told_lines_dropped": (
        "gauge",
        "lines that the pipe did not take: how it is now is older by as many",
    ),
}


@dataclass
class LiveState:
    """What was told so far."""

    study: dict[str, Any] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)
    rounds: int = 0
    executions: int = 0
    arms: list[dict[str, str]] = field(default_factory=list)
    now: dict[str, Any] = field(default_factory=dict)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By cell."""
    dropped: int = 0

    def take(self, told: Mapping[str, Any]) -> None:
        """One line. What is not understood changes nothing."""
        self.dropped = int(told.get("dropped", self.dropped))
        match told.get("what"):
            case "study":
                self.study = dict(told)
            case "execution":
                self.executions += 1
            case "arm":
                self.arms.append({str(name): str(value) for name, value in told["labels"].items()})
                self.now = {}
            case "now":
                self.now = dict(told)
            case "ended":
                self.trials[str(told["status"])] = self.trials.get(str(told["status"]), 0) + 1
            case "round":
                self.rounds += 1
                self.arms, self.now = [], {}
            case "last":
                self.last[str(told["cell"])] = dict(told)

    def samples(self) -> Iterator[tuple[str, Mapping[str, object], float]]:
        """Name without `meshwise_`, labels, value."""
        yield "run_info", {"study": self.study.get("name", ""), "version": self.study.get("version", "")}, 1.0
        if "started_s" in self.study:
            yield "run_started_timestamp_seconds", {}, float(self.study["started_s"])
            yield "run_trials_planned", {}, float(self.study["trials"])
        for status in ("ok", "failed", "unproven"):
            yield "run_trials_total", {"status": status}, float(self.trials.get(status, 0))
        yield "run_rounds_total", {}, float(self.rounds)
        yield "run_executions_total", {}, float(self.executions)
        yield "run_measuring", {}, float(bool(self.now))
        for labels in self.arms:
            yield "run_current_info", labels, 1.0
        if self.now:
            elapsed, done = float(self.now["elapsed_s"]), float(self.now["completed"])
            yield "run_current_elapsed_seconds", {}, elapsed
            yield "run_current_requests", {}, done
            if elapsed > 0:
                yield "run_current_requests_per_second", {}, done / elapsed
            if self.now.get("p50_us") is not None:
                yield "run_current_response_p50_seconds", {}, float(self.now["p50_us"]) / 1e6
        for told in self.last.values():
            for name, value in told["values"].items():
                if f"run_last_{name}" in _HELP and value is not None:
                    yield f"run_last_{name}", told["labels"], float(value)
        yield "run_told_lines_dropped", {}, float(self.dropped)

    def text(self) -> str:
        by_name: dict[str, list[str]] = {}
        for name, labels, value in self.samples():
            line = f"meshwise_{name}{label_text(labels_of(labels))} {number(value)}"
            by_name.setdefault(name, []).append(line)
        return "".join(
            f"# HELP meshwise_{name} {_HELP[name][1]}\n# TYPE meshwise_{name} {_HELP[name][0]}\n"
            + "\n".join(lines)
            + "\n"
            for name, lines in by_name.items()
        )


@dataclass
class _Client:
    asked: bytes = b""
    answer: bytes = b""
    since: float = field(default_factory=time.monotonic)


class LiveServer:
    """Answers on `listening` until the pipe `told` ends. One thread, nothing blocks."""

    def __init__(self, listening: socket.socket, told: int) -> None:
        self._listening, self._told = listening, told
        self._state, self._rest = LiveState(), b""
        self._answer, self._made_s = b"", -1e9
        self._clients: dict[socket.socket, _Client] = {}
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        self._listening.setblocking(False)
        os.set_blocking(self._told, False)
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._told, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(_PATIENCE_S if self._clients else None):
                if key.fileobj == self._told:
                    if not self._read():
                        return
                elif key.fileobj is self._listening:
                    self._accept()
                else:
                    assert isinstance(key.fileobj, socket.socket)
                    self._serve(key.fileobj)
            for client, state in list(self._clients.items()):
                if time.monotonic() - state.since > _PATIENCE_S:
                    self._drop(client)

    def _read(self) -> bool:
        """False at the end."""
        try:
            piece = os.read(self._told, 1 << 16)
        except BlockingIOError:
            return True
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                self._state.take(json.loads(line))
        return bool(piece)

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except OSError:
            return
        if len(self._clients) >= MOST_CLIENTS:
            client.close()
            return
        client.setblocking(False)
        self._clients[client] = _Client()
        self._selector.register(client, selectors.EVENT_READ)

    def _serve(self, client: socket.socket) -> None:
        state = self._clients[client]
        try:
            if not state.answer:
                piece = client.recv(_MOST_REQUEST_BYTES)
                state.asked += piece
                if not piece or len(state.asked) > _MOST_REQUEST_BYTES:
                    self._drop(client)
                    return
                if b"\r\n\r\n" not in state.asked:
                    return
                state.answer = self._answer_to(state.asked)
                self._selector.modify(client, selectors.EVENT_WRITE)
            state.answer = state.answer[client.send(state.answer) :]
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if not state.answer:
            self._drop(client)

    def _answer_to(self, asked: bytes) -> bytes:
        method, _, rest = asked.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _http(404, "text/plain", b"only /metrics is here\n")
        if method not in (b"GET", b"HEAD"):
            return _http(405, "text/plain", b"only GET\n")
        if time.monotonic() - self._made_s > FRESH_S:
            self._answer, self._made_s = self._state.text().encode("utf-8", "replace"), time.monotonic()
        return _http(200, CONTENT_TYPE, self._answer, body=method == b"GET")

    def _drop(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._clients[client]
        client.close()


_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed"}


def _http(status: int, kind: str, content: bytes, *, body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + (content if body else b"")


def main() -> None:
    """`python -m meshwise.series.live LISTENING_FD PIPE_FD PARENT_PID`."""
    listening, told, parent = map(int, sys.argv[1:4])
    linux.die_with_parent()
    if os.getppid() != parent:
        return
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with socket.socket(fileno=listening) as own:
        LiveServer(own, told).run()


if __name__ == "__main__":
    main()
