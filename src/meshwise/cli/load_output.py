"""What `meshwise load` leaves: a summary for people, files for programs. Files are opened before the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from rich.table import Table
from rich.text import Text

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.files import writing
from meshwise.core.units import format_duration, format_size
from meshwise.load.report import LoadReport, Percentiles
from meshwise.load.spec import LoadSpec
from meshwise.report import edge
from meshwise.study.protocol import Streaming

STDOUT = Path("-")


@dataclass(frozen=True)
class Outputs:
    """The files that were asked for, open."""

    writers: tuple[Callable[[pa.Table], None], ...]
    takes_stdout: bool
    """One of them is stdout, so everything else goes to stderr."""

    def write(self, read: Callable[[], pa.Table]) -> None:
        """Each gets the table, whatever becomes of the others. Raises MW310 of the first that failed."""
        failures = []
        table = read() if self.writers else None
        for writer in self.writers:
            try:
                writer(table)
            except MeshwiseError as error:
                failures.append(error)
        if failures:
            raise failures[0]


@contextmanager
def open_outputs(
    parquet: Path | None, csv: Path | None, inputs: Sequence[Path | None] = ()
) -> Iterator[Outputs]:
    """`inputs`: files that the run reads, which no output may replace (MW303).

    A file that cannot be written is MW310 now, not after the run. It has its name, or another content than
    before, only when all of it is written."""
    if parquet == csv == STDOUT:
        raise messages.BAD_LOAD_OPTION.error(
            what="--parquet - and --csv - both take stdout", remedy="give one of them a file"
        )
    if parquet and csv and parquet.resolve() == csv.resolve() and not parquet.is_char_device():
        raise messages.BAD_LOAD_OPTION.error(
            what=f"--parquet and --csv both name {csv}", remedy="give each a file of its own"
        )
    read = {path.resolve() for path in inputs if path and path.is_file()}
    for path in (parquet, csv):
        if path and path.resolve() in read:
            raise messages.BAD_LOAD_OPTION.error(
                what=f"the records would replace {path}, which is read", remedy="give another file"
            )
    with ExitStack() as stack:
        writers: list[Callable[[pa.Table], None]] = []
        for path, write in ((parquet, _write_parquet), (csv, _write_csv)):
            if path == STDOUT:
                writers.append(partial(write, file=edge.binary_stdout()))
            elif path is not None:
                output = stack.enter_context(ExitStack())
                try:
                    file = output.enter_context(writing(path))
                except OSError as error:
                    raise messages.CANNOT_WRITE_OUTPUT.error(where=str(path), why=error.strerror) from error
                writers.append(_guarded(write, output, file, path))
        yield Outputs(tuple(writers), STDOUT in (parquet, csv))


def _guarded(
    write: Callable[[pa.Table, BinaryIO], None], output: ExitStack, file: BinaryIO, path: Path
) -> Callable[[pa.Table], None]:
    def guarded(table: pa.Table) -> None:
        try:
            with output:
                write(table, file)
        except OSError as error:
            raise messages.CANNOT_WRITE_OUTPUT.error(where=str(path), why=str(error)) from error

    return guarded


def _write_parquet(table: pa.Table, file: BinaryIO) -> None:
    pyarrow.parquet.write_table(table, file, compression="zstd")


def _write_csv(table: pa.Table, file: BinaryIO) -> None:
    plain = table.set_column(table.schema.get_field_index("error"), "error", table["error"].cast(pa.string()))
    pyarrow.csv.write_csv(plain, file)


# --- the summary ---------------------------------------------------------------------------------

_LIMITS = {
    "none": "",
    "instrument": "Limited by the instrument, not by the server: do not trust the times. "
    "Lower the rate, add --processes, or give it a CPU of its own with --cpu.",
    "host": "Sends were late because the host did not give the instrument the CPU in time: do not trust the "
    "times. Keep other work off this machine, or give the instrument a CPU of its own with --cpu.",
    "connection": "Requests waited for connections that had to be made anew. That waiting is in the response "
    "time.",
    "unknown": "",
    "server": "Limited by the server or by too few connections: requests waited for a free one. "
    "That waiting is in the response time.",
}


_CAUSES = {
    "slot": "a free slot",
    "connection": "a connection",
    "instrument": "the instrument",
    "host": "the host",
}


def print_summary(report: LoadReport, spec: LoadSpec, url: str, *, stderr: bool = False) -> None:
    """One screen: what was done, how long it took, what went wrong, whether the times can be trusted."""
    console = edge.console(stderr=stderr)
    tls = f", {report.tls}" if report.tls else ""
    console.print(Text(f"{url}  {spec.protocol}{tls}", "bold"))
    console.print(f"{how(report, spec)} for {format_duration(spec.duration_ns)} over {slots(spec)}\n")
    console.print(_facts(report, spec))
    console.print()
    console.print(_times(report))
    console.print()
    console.print(Text(_closing(report)))
    for note in warnings_of(report):
        console.print(Text(f"  {note}", "yellow"))


def _facts(report: LoadReport, spec: LoadSpec) -> Table:
    grid = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    errors = ", ".join(f"{kind} {count:,}" for kind, count in report.errors.items()) or "none"
    grid.add_row("requests", f"{report.requests:,}")
    grid.add_row("errors", Text(errors, "red" if report.errors else ""))
    if report.statuses:
        statuses = ", ".join(f"{name}: {count:,}" for name, count in report.statuses.items())
        grid.add_row("statuses", Text(statuses))
    if waits := {cause: count for cause, count in report.waited_for.items() if count}:
        grid.add_row("waited for", ", ".join(f"{_CAUSES[cause]} {count:,}" for cause, count in waits.items()))
    grid.add_row(
        "good answers", f"{report.rate_achieved:,.1f}/s, {format_size(report.received_bytes)} received"
    )
    setup = f"{report.connections_made:,} made"
    if len(spec.targets) > 1:
        setup += " (" + ", ".join(f"{count:,} to {name}" for name, count in report.addresses.items()) + ")"
    if report.connect_us.p50 is not None:
        setup += f", TCP {report.connect_us.p50:,.0f} µs"
    if report.tls_us.p50 is not None:
        setup += f", TLS {report.tls_us.p50:,.0f} µs (medians)"
    if report.tls_resumed_us.p50 is not None:
        setup += f"; {report.tls_resumed:,} resumed, {report.tls_resumed_us.p50:,.0f} µs"
    grid.add_row("connections", setup)
    if report.messages:
        rate = f", {report.messages / report.duration_s:,.1f}/s" if report.duration_s else ""
        grid.add_row("messages", f"{report.messages:,} in good streams{rate}")
    if report.cpu_us_per_request is not None and report.cpu_share is not None:
        cpu = f"{report.cpu_us_per_request:.1f} µs of CPU per request, {report.cpu_share:.0%} of a core"
        grid.add_row("instrument", cpu + (f" ({report.processes} processes)" if report.processes > 1 else ""))
    return grid


def slots(spec: LoadSpec) -> str:
    """Over what requests went, and how it was replaced."""
    text = f"{spec.connections} connections" + (f" × {spec.streams} streams" if spec.streams > 1 else "")
    if spec.requests_per_connection:
        text += f", each for {spec.requests_per_connection} requests" * (spec.requests_per_connection > 1)
        text += ", a new one per request" * (spec.requests_per_connection == 1)
        text += ", TLS resumed" * spec.resume_tls
    if spec.churn_per_s:
        text += f", {spec.churn_per_s:g}/s of them replaced"
    if spec.streaming is not Streaming.NONE:
        text += f", {spec.streaming} streams of {spec.messages or 'any number of'} messages"
    return text


def how(report: LoadReport, spec: LoadSpec) -> str:
    """How requests were spread over time."""
    if report.closed_loop:
        return "closed loop" + (f", thinking {spec.think.words}" if spec.think else "")
    if spec.trace is not None:
        return f"{spec.rate_rps:g}/s on average, the times of a trace,"
    moved = f", {spec.shape.words}," if spec.shape else ""
    return f"{spec.rate_rps:g}/s {spec.arrivals}{moved}"


def _times(report: LoadReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("µs")
    for name in ("P50", "P90", "P99", "P99.9", "mean", "max"):
        table.add_column(name, justify="right")
    rows = [
        ("response time", report.response_time_us, "bold"),
        ("  of that, service", report.service_time_us, ""),
        ("  lateness of sends", report.lateness_us, "dim"),
    ]
    if report.queued_requests:
        rows.append((f"  queueing ({report.queued_requests:,})", report.queueing_us, ""))
    for name, values, style in rows:
        table.add_row(name, *_cells(values), style=style)
    return table


def _cells(values: Percentiles) -> list[str]:
    numbers = (values.p50, values.p90, values.p99, values.p999, values.mean, values.max)
    return [
        "–" if number is None else f"{number:,.1f}" if number < 1000 else f"{number:,.0f}"
        for number in numbers
    ]


def _closing(report: LoadReport) -> str:
    times = report.response_time_us
    if times.p50 is None:
        return (
            f"Half of the {report.requests:,} requests or more failed."
            if report.requests
            else "Nothing was sent."
        )
    tail = "more than a tenth failed" if times.p90 is None else f"nine in ten within {times.p90:,.0f} µs"
    failed = sum(report.errors.values())
    share = f"; {failed / report.requests:.2%} failed" if failed else ""
    return f"Half of the requests were answered within {times.p50:,.0f} µs, {tail}{share}."


def warnings_of(report: LoadReport) -> list[str]:
    """Whether to believe it, in sentences."""
    limit = _LIMITS[report.limited_by] if not (report.closed_loop and report.limited_by == "server") else ""
    stopped = "Stopped early; this is what was sent by then." if report.stopped_early else ""
    made = ", ".join(f"{kind} {count:,}" for kind, count in report.setup_failures.items())
    failures = f"Connections that could not be made: {made}." if made else ""
    return [
        text
        for text in (limit, stopped, failures, *(note[0].upper() + note[1:] + "." for note in report.notes))
        if text
    ]
