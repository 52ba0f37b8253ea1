"""`--metrics ADDRESS`: tells a process of its own what a run's progress is told, for whoever scrapes it.

What it costs the study is a line into a pipe per event of the runner; the numbers of a trial are computed
when its round is stored and nothing is measured. See `series.live` for the rest.
"""

from __future__ import annotations

import ipaddress
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from meshwise import __version__
from meshwise.analysis.live import measured
from meshwise.archive.outcome import TrialOutcome
from meshwise.cli.export import bad_option
from meshwise.core import messages
from meshwise.findings.metric import MetricKey
from meshwise.measure.attribution import Machine
from meshwise.measure.trial import UNKNOWN_MACHINE
from meshwise.runner.loop import (
    Event,
    ExecutionStarted,
    Observer,
    RoundFinished,
    TrialFinished,
    TrialLive,
    TrialStarted,
)
from meshwise.study.model import Role, Study, Trial

Tell = Callable[[Mapping[str, Any]], None]
_OF_LAST = {
    "response_p50_seconds": ("response_p50_us", 1e-6),
    "response_p99_seconds": ("response_p99_us", 1e-6),
    "requests_per_second": ("throughput_rps", 1.0),
    "error_ratio": ("error_ratio", 1.0),
    "sidecar_cpu_seconds_per_request": ("cpu_us_per_request", 1e-6),
    "sidecar_memory_bytes": ("memory_bytes", 1.0),
}
"""Of the series: the metric of a trial, and the factor to its base unit."""


def live_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:PORT`, `[::1]:PORT`. Raises MW010 for what is not on loopback."""
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        loopback = ipaddress.ip_address("127.0.0.1" if bare == "localhost" else bare).is_loopback
    except ValueError:
        loopback = False
    if not loopback or not port.isdecimal() or not 0 < int(port) < 65536:
        raise bad_option(
            f"`--metrics {text}` is no address on loopback",
            "give 127.0.0.1:PORT; a study is not shown to a network",
        )
    return "127.0.0.1" if bare == "localhost" else bare, int(port)


@contextmanager
def serving(address: tuple[str, int]) -> Iterator[Tell]:
    """The process that answers, as long as the block lasts. Raises MW030 where the port is taken."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(16)
        except OSError as error:
            raise messages.METRICS_PORT_TAKEN.error(
                address=f"{address[0]}:{address[1]}", reason=error.strerror or str(error)
            ) from error
        reading, writing = os.pipe()
        handed = (listening.fileno(), reading, os.getpid())
        server = subprocess.Popen(
            [sys.executable, "-m", "meshwise.series.live", *map(str, handed)],
            pass_fds=(listening.fileno(), reading), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    os.close(reading)
    os.set_blocking(writing, False)
    try:
        yield told_into(writing)
    finally:
        os.close(writing)
        server.send_signal(signal.SIGTERM)
        server.wait()


def told_into(pipe: int) -> Tell:
    """Writes a line at a time; what the pipe does not take at once is dropped, and the next one says so."""
    dropped = 0

    def tell(what: Mapping[str, Any]) -> None:
        nonlocal dropped
        line = json.dumps({**what, "dropped": dropped}).encode() + b"\n"
        if len(line) > _PIPE_BUF:  # only so much is written whole or not at all (pipe(7))
            dropped += 1
            return
        try:
            os.write(pipe, line)
        except (BlockingIOError, BrokenPipeError):
            dropped += 1

    return tell


_PIPE_BUF = 4096


def live_observer(tell: Tell, study: Study, trials: int, machine: Machine = UNKNOWN_MACHINE) -> Observer:
    """What the runner says, told on."""
    tell(
        {
            "what": "study",
            "name": study.name,
            "version": __version__,
            "trials": trials,
            "started_s": time.time(),
        }
    )

    def observe(event: Event) -> None:
        match event:
            case ExecutionStarted():
                tell({"what": "execution"})
            case TrialStarted(trial):
                tell({"what": "arm", "labels": _labels(trial) | {"trial": trial.trial_id}})
            case TrialLive(_, live):
                tell(
                    {
                        "what": "now",
                        "elapsed_s": live.elapsed_s,
                        "completed": live.completed,
                        "p50_us": live.p50_us,
                    }
                )
            case TrialFinished(_, outcome):
                tell({"what": "ended", "status": str(outcome.status)})
            case RoundFinished(outcomes):
                tell({"what": "round"})
                for outcome in outcomes:
                    if told := _last(outcome, machine):
                        tell(told)

    return observe


def _labels(trial: Trial) -> dict[str, str]:
    cell = trial.cell
    return {
        "mesh": str(cell.mesh), "posture": cell.posture.name, "protocol": str(cell.protocol),
        "rate_rps": f"{cell.rate_rps:g}", "role": str(trial.role), "process_set": trial.process_set,
    }  # fmt: skip


def _last(outcome: TrialOutcome, machine: Machine) -> dict[str, Any] | None:
    if outcome.trial.role is Role.COUNT or (result := measured(outcome, machine)) is None:
        return None
    values = {
        name: _number(result.values.get(MetricKey(metric)), by) for name, (metric, by) in _OF_LAST.items()
    }
    labels = _labels(outcome.trial)
    return {
        "what": "last", "cell": "/".join(labels.values()), "labels": labels,
        "values": values | {"trial_timestamp_seconds": time.time()},
    }  # fmt: skip


def _number(value: float | None, by: float) -> float | None:
    return None if value is None or not math.isfinite(value) else value * by


def both(first: Observer, second: Observer | None) -> Observer:
    """Tell both, the first one first."""
    if second is None:
        return first

    def observe(event: Event) -> None:
        first(event)
        second(event)

    return observe
