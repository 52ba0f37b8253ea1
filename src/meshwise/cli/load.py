"""`meshwise load URL`: the instrument alone, against any server that speaks HTTP/1.1, HTTP/2 or gRPC."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from meshwise.cli.load_options import (
    Target,
    check_room,
    of_option,
    parse_grpc_path,
    parse_headers,
    parse_method,
    parse_server_name,
    parse_url,
    read_message,
    refusal,
)
from meshwise.cli.load_output import open_outputs, print_summary
from meshwise.cli.load_patterns import (
    ChurnOption,
    MessagesOption,
    RequestBytesOption,
    RequestsPerConnectionOption,
    ResponseBytesOption,
    ResumeOption,
    SpreadOption,
    StreamingOption,
    parse_sizes,
    patterned,
)
from meshwise.cli.load_shape import (
    ShapeOption,
    SortOption,
    ThinkOption,
    TimeColumnOption,
    TraceOption,
    UnitOption,
    moving,
    trace_form,
)
from meshwise.cli.load_targets import (
    as_json,
    check_alike,
    differences_of,
    letter,
    print_compared,
    requests_of_each,
)
from meshwise.core import messages
from meshwise.core.memory import available_bytes
from meshwise.core.units import parse_duration_ns, parse_rate_rps
from meshwise.load.dealt import Dealt
from meshwise.load.launch import RunningLoad, running_load
from meshwise.load.records import peek
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.report import edge
from meshwise.study.model import Arrivals, Protocol
from meshwise.study.protocol import Streaming

_END_GRACE_S = 15.0
_MOST_STOPS = 2
_SAME_STOP_S = 1.0


def load(
    urls: Annotated[
        list[str],
        typer.Argument(
            help="http://HOST:PORT/PATH, https://... or tcp://HOST:PORT; several are compared.",
            metavar="URL...",
        ),
    ],
    protocol: Annotated[Protocol, typer.Option(help="http2 and grpc need no upgrade.")] = Protocol.HTTP1,
    rate: Annotated[
        str | None,
        typer.Option(help="Requests, like 1000/s; ignored by closed arrivals.", show_default="1000/s"),
    ] = None,
    duration: Annotated[str, typer.Option(help="Measured time, like 10s.")] = "10s",
    warmup: Annotated[str, typer.Option(help="Time before it that is not counted.")] = "1s",
    connections: Annotated[
        int, typer.Option(help="Clients: connections open at once, kept by default.")
    ] = 16,
    streams: Annotated[int, typer.Option(help="At once per connection (http2, grpc).")] = 1,
    arrivals: Annotated[
        Arrivals, typer.Option(help="How requests are spread over time.")
    ] = Arrivals.CONSTANT,
    request_bytes: RequestBytesOption = "0",
    response_bytes: ResponseBytesOption = "0",
    requests_per_connection: RequestsPerConnectionOption = None,
    churn: ChurnOption = None,
    resume_tls: ResumeOption = False,
    streaming: StreamingOption = Streaming.NONE,
    messages_per_stream: MessagesOption = None,
    header: Annotated[list[str] | None, typer.Option(help="'name: value'; may be repeated.")] = None,
    method: Annotated[str | None, typer.Option(help="Default GET, or POST with a body.")] = None,
    grpc_method: Annotated[str | None, typer.Option(help="package.Service/Method", metavar="METHOD")] = None,
    message: Annotated[
        Path | None, typer.Option(help="The serialised request message.", metavar="FILE")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="PEM; without it the server is not verified.")] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM of the client's certificate chain.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM of its key, if not in --cert.")] = None,
    server_name: Annotated[str | None, typer.Option(help="For TLS, if not the URL's host.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write every request there.", metavar="FILE")] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Likewise; `-` (here too) is stdout, and the report goes to stderr.", metavar="FILE"
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    spin: Annotated[str, typer.Option(help="Poll this long before each send: less late, more CPU.")] = "0us",
    spread: SpreadOption = False,
    cpu: Annotated[
        int | None, typer.Option(help="Pin the instrument to this CPU (and the next ones).")
    ] = None,
    timeout: Annotated[str, typer.Option(help="An answer this late is an error.")] = "10s",
    seed: Annotated[
        int,
        typer.Option(
            help="Of uniform and poisson arrivals, and of what a shape draws.",
            min=0,
            max=2**63 - 1,
            show_default="1",
            metavar="N",
        ),
    ] = 1,
    shape: ShapeOption = None,
    trace: TraceOption = None,
    time_column: TimeColumnOption = None,
    unit: UnitOption = None,
    sort: SortOption = False,
    think: ThinkOption = None,
    processes: Annotated[int, typer.Option(help="Divide the load among so many.")] = 1,
) -> None:
    """Send requests on schedule and say how long they took, counted from when they were meant to be sent.

    Exit status 0 when the run ended (failed requests are results), 2 for bad input, 3 when no connection
    could be made or an output not written, 130 after Ctrl-C, SIGTERM or SIGHUP (with a summary of what was
    sent by then).

    Several URLs are compared: the requests of all are one stream, dealt at random, --rate to each, so that
    all meet the same moments. Differences to the first have 95 % intervals over stretches of this one run:
    one execution of the servers, which differ by more when started anew.

    Example: meshwise load http://127.0.0.1:8080/ --rate 2000/s --duration 10s --connections 16
    """
    targets = [parse_url(url) for url in urls]
    check_alike(targets)
    if trace is not None and rate is not None:
        raise refusal("--rate and --trace both say the rate", "leave out --rate")
    body = read_message(message) if message else None
    request = of_option("--request-bytes", parse_sizes, request_bytes)
    if targets[0].opaque or protocol is Protocol.TCP:
        protocol = _opaque(targets[0], protocol, header or method)
    if (grpc_method or message) and protocol is not Protocol.GRPC:
        raise messages.BAD_LOAD_OPTION.error(
            what=f"--grpc-method and --message mean nothing to {protocol}", remedy="add --protocol grpc"
        )
    default_method = "POST" if request != 0 or protocol is Protocol.GRPC else "GET"
    of_all = LoadSpec(
        address="",
        port=0,
        authority="",
        spread=spread,
        protocol=protocol,
        method=parse_method(default_method if method is None else method),
        path="",
        headers=parse_headers(header or []),
        body_bytes=0,
        rate_rps=of_option("--rate", parse_rate_rps, "1000/s" if rate is None else rate),
        arrivals=arrivals,
        seed=seed,
        warmup_ns=of_option("--warmup", parse_duration_ns, warmup),
        duration_ns=of_option("--duration", parse_duration_ns, duration),
        connections=connections,
        streams=streams,
        timeout_ns=of_option("--timeout", parse_duration_ns, timeout),
        grpc_message=body,
        cpu=cpu,
        spin_ns=of_option("--spin", parse_duration_ns, spin),
        processes=processes,
    )
    any_tls = any(target.tls for target in targets)
    specs = [
        patterned(
            replace(
                of_all,
                address=target.addresses[0],
                addresses=target.addresses if len(target.addresses) > 1 else (),
                port=target.port,
                authority=target.authority,
                path=_path(target, protocol, grpc_method),
                tls=_tls(target, server_name, ca, cert, key) if target.tls or not any_tls else None,
            ),
            request=request,
            response=of_option("--response-bytes", parse_sizes, response_bytes),
            requests_per_connection=requests_per_connection,
            churn=churn,
            resume_tls=resume_tls,
            streaming=streaming,
            messages_per_stream=messages_per_stream,
        )
        for target in targets
    ]
    form = trace_form(trace, time_column, unit, sort)
    files_read = (trace, message, ca, cert, key)
    with (
        moving(specs[0], shape, trace, form, think) as first,
        open_outputs(parquet, csv, files_read) as outputs,
    ):
        moved = {name: getattr(first, name) for name in ("rate_rps", "shape", "trace", "think")}
        dealt = Dealt(tuple(replace(spec, **moved) for spec in specs), seed)
        check_room(first, available_bytes(), len(specs))
        with running_load(dealt) as running, _stops() as stops:
            _watch(running, stops)
            # Printed before the files: what was measured must not be lost to a full disk.
            _print(running, urls, json=json, stderr=outputs.takes_stdout)
            outputs.write(lambda: requests_of_each(running))
    if stops:
        raise typer.Exit(edge.INTERRUPTED)


def _print(running: RunningLoad, urls: Sequence[str], *, json: bool, stderr: bool) -> None:
    """The report, or those of several targets and what differs."""
    reports = running.reports()
    if len(reports) > 1:
        found = differences_of(running, reports)
        if json:
            typer.echo(as_json(urls, reports, found), err=stderr)
        else:
            print_compared(urls, reports, found, running.dealt, stderr=stderr)
    elif json:
        typer.echo(reports[0].to_json(), err=stderr)
    else:
        print_summary(reports[0], running.spec, urls[0], stderr=stderr)


def _opaque(target: Target, protocol: Protocol, of_requests: object) -> Protocol:
    """tcp, when URL and options agree on it."""
    if not target.opaque:
        raise messages.BAD_LOAD_OPTION.error(
            what="--protocol tcp with a URL of HTTP", remedy="write tcp://HOST:PORT"
        )
    if protocol in (Protocol.HTTP2, Protocol.GRPC) or of_requests:
        raise messages.BAD_LOAD_OPTION.error(
            what="opaque TCP has no HTTP method, header or version", remedy="leave those options out"
        )
    return Protocol.TCP


def _path(target: Target, protocol: Protocol, grpc_method: str | None) -> str:
    if protocol is not Protocol.GRPC:
        return target.path
    return parse_grpc_path(grpc_method or target.path, "--grpc-method: " if grpc_method else "")


def _tls(
    target: Target, server_name: str | None, ca: Path | None, cert: Path | None, key: Path | None
) -> TlsSpec | None:
    if target.tls:
        if key and not cert:
            raise messages.BAD_LOAD_OPTION.error(what="--key without --cert", remedy="add --cert FILE")
        name = target.host.partition("%")[0] if server_name is None else parse_server_name(server_name)
        ca_file, cert_file, key_file = (str(path) if path else None for path in (ca, cert, key))
        return TlsSpec(name, ca_file, cert_file, key_file)
    if ca or cert or key or server_name:
        raise messages.BAD_LOAD_OPTION.error(
            what="TLS options for a URL without TLS", remedy="write https:// or leave them out"
        )
    return None


# --- watching ------------------------------------------------------------------------------------


def _watch(running: RunningLoad, stops: list[float]) -> None:
    """Until the run ends, with a line of progress on a terminal; `stops`: when it was asked to end.

    The first stop asks the instrument, a second one ends it at once; so does an instrument that hangs.
    """
    spec, console = running.spec, edge.console(stderr=True)
    limit_s = (spec.warmup_ns + spec.duration_ns + spec.timeout_ns) / 1e9 + _END_GRACE_S
    asked_s = math.inf
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while not running.process.wait(0.2 if console.is_terminal else 0.05):
            elapsed_s = (time.monotonic_ns() - running.start_ns) / 1e9
            if len(stops) > 1 or elapsed_s > asked_s + _END_GRACE_S:
                running.process.send(signal.SIGKILL)
            elif math.isinf(asked_s) and (stops or elapsed_s > limit_s):
                asked_s = elapsed_s
                running.process.send(signal.SIGTERM)
            if console.is_terminal:
                live.update(Text(_progress(running, elapsed_s), style="dim"), refresh=True)


def _progress(running: RunningLoad, elapsed_s: float) -> str:
    """A line; of several targets one for each below it."""
    spec = running.spec
    warmup_s, duration_s = spec.warmup_ns / 1e9, spec.duration_ns / 1e9
    phase = "warming up" if elapsed_s < warmup_s else "measuring"
    at_s = min(max(elapsed_s - warmup_s, 0.0), duration_s)
    so_far = []
    for files in running.files_of_each:
        answers, p50_us = peek(files)
        typical = "" if p50_us is None else f" · P50 of the last second {p50_us:,.0f} µs"
        so_far.append(f"{answers:,} answers{typical}")
    at = f"{phase} {at_s:.1f} of {duration_s:g} s"
    if len(so_far) == 1:
        return f"{at} · {so_far[0]} · Ctrl-C stops"
    return "\n".join([f"{at} · Ctrl-C stops", *(f"  {letter(n)}  {text}" for n, text in enumerate(so_far))])


@contextmanager
def _stops() -> Iterator[list[float]]:
    """The times of Ctrl-C, SIGTERM and SIGHUP inside the block, instead of KeyboardInterrupt: that comes with
    the third, which gives up the summary. Those within a second are one: kernel and shell both send SIGHUP
    when a terminal closes. What the caller ignores (SIGHUP under nohup) stays ignored."""
    times: list[float] = []

    def note(_number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not times or now > times[-1] + _SAME_STOP_S:
            times.append(now)
        if len(times) > _MOST_STOPS:
            raise KeyboardInterrupt

    heeded = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    ]
    former = {number: signal.signal(number, note) for number in heeded}
    try:
        yield times
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
