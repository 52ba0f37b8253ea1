"""Of several URLs after `meshwise load`: what is asked of each, and what is printed of all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from rich.table import Table
from rich.text import Text

from meshwise.cli.load_options import Target
from meshwise.cli.load_output import how, slots, warnings_of
from meshwise.core import messages
from meshwise.core.units import format_duration
from meshwise.load.dealt import Dealt
from meshwise.load.differences import BLOCKS, LEAST_BLOCKS, Difference, differences, responses
from meshwise.load.launch import RunningLoad
from meshwise.load.records import open_columns, read_records, record_paths
from meshwise.load.report import LoadReport
from meshwise.report import edge

MOST_TARGETS = 64
_WORDS = {
    "response_p50_us": "response time, P50",
    "response_mean_us": "response time, mean",
    "response_p99_us": "response time, P99",
    "error_ratio": "failed requests",
}


def check_alike(targets: Sequence[Target]) -> None:
    """Raises MW303 for URLs that are not asked the same way."""
    if len(targets) > MOST_TARGETS:
        raise messages.BAD_LOAD_OPTION.error(
            what=f"more than {MOST_TARGETS} URLs", remedy="compare fewer of them in one run"
        )
    if len({target.opaque for target in targets}) > 1:
        raise messages.BAD_LOAD_OPTION.error(
            what="tcp:// beside a URL of HTTP", remedy="compare servers that speak the same protocol"
        )


def differences_of(running: RunningLoad, reports: Sequence[LoadReport]) -> list[Difference]:
    """Over the time that was measured."""
    of_each = [
        responses([open_columns(path) for path in record_paths(files)]) for files in running.files_of_each
    ]
    return differences(of_each, reports[0].duration_s)


def requests_of_each(running: RunningLoad) -> pa.Table:
    """All requests by intended time; of several targets with the column `target`, counted from 0."""
    tables = [read_records(files) for files in running.files_of_each]
    if len(tables) == 1:
        return tables[0]
    numbered = [
        table.append_column("target", pa.repeat(pa.scalar(number, pa.int32()), table.num_rows))
        for number, table in enumerate(tables)
    ]
    return pa.concat_tables(numbered, promote_options="default").sort_by("intended_ns").combine_chunks()


def as_json(urls: Sequence[str], reports: Sequence[LoadReport], found: Sequence[Difference]) -> str:
    targets = [{"url": url, **report.to_dict()} for url, report in zip(urls, reports, strict=True)]
    return json.dumps({"targets": targets, "differences": [_values(each, urls) for each in found]}, indent=1)


def _values(difference: Difference, urls: Sequence[str]) -> dict[str, Any]:
    values = asdict(difference)
    ends = {"from": urls[difference.from_target], "to": urls[difference.to_target]}
    return {"metric": values.pop("metric"), **ends, **values}


# --- for people ------------------------------------------------------------------------------------


def print_compared(
    urls: Sequence[str],
    reports: Sequence[LoadReport],
    found: Sequence[Difference],
    dealt: Dealt,
    *,
    stderr: bool,
) -> None:
    """A table of the targets, one of the differences, and what is to be known of both."""
    console = edge.console(stderr=stderr)
    spec, first = dealt.first, reports[0]
    for number, (url, report) in enumerate(zip(urls, reports, strict=True)):
        tls = f", {report.tls}" if report.tls else ""
        console.print(Text(f"{letter(number)}  {url}  {spec.protocol}{tls}", "bold"))
    each = f"{how(first, spec)} for {format_duration(spec.duration_ns)} over {slots(spec)}"
    console.print(f"{each}, each; one stream of requests, dealt at random\n")
    console.print(_targets(reports))
    console.print()
    console.print(_differences(found))
    console.print()
    for number, report in enumerate(reports):
        if report.silent_from_s is not None:
            console.print(Text(_silent_words(number, report), "red"))
    console.print(Text(_explained(found), "dim"))
    for number, report in enumerate(reports):
        for note in warnings_of(report):
            console.print(Text(f"  {letter(number)}: {note}", "yellow"))


def _silent_words(number: int, report: LoadReport) -> str:
    """Said before the intervals are explained: they are over stretches with and without answers."""
    when = f"{report.silent_from_s:.2f} s of {report.duration_s:g} s"
    return (
        f"{letter(number)} stopped answering at {when}: its last {report.silent_requests:,} requests had no"
        " answer. The differences above hold stretches of the run before and after that: run again with"
        " servers that last."
    )


def letter(number: int) -> str:
    """Of a target, counted from 0: A, B, ... Z, then numbers."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


def _targets(reports: Sequence[LoadReport]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("response, µs")
    for name in ("P50", "P90", "P99", "mean", "requests", "failed", "queued", "late P50", "connections"):
        table.add_column(name, justify="right")
    for number, report in enumerate(reports):
        times = report.response_time_us
        failed = sum(report.errors.values())
        table.add_row(
            letter(number),
            *(_number(value) for value in (times.p50, times.p90, times.p99, times.mean)),
            f"{report.requests:,}",
            Text(f"{failed:,}", "red" if failed else ""),
            f"{report.queued_requests:,}",
            _number(report.lateness_us.p50),
            f"{report.connections_made:,}",
        )
    return table


def _differences(found: Sequence[Difference]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("difference")
    table.add_column("95 % interval, in one run", justify="right")
    table.add_column("in per cent", justify="right")
    for each in found:
        name = f"{letter(each.to_target)} - {letter(each.from_target)}  {_WORDS[each.metric]}"
        clear = each.low > 0 or each.high < 0
        table.add_row(name, *_interval(each), style="" if clear else "dim")
    return table


def _interval(each: Difference) -> tuple[str, str]:
    if each.metric == "error_ratio":
        return f"{each.estimate:+.2%} [{each.low:+.2%}, {each.high:+.2%}]", ""
    values = [_signed(value) for value in (each.estimate, each.low, each.high)]
    absolute = f"{values[0]} µs [{values[1]}, {values[2]}]"
    if each.ratio is None or each.ratio_low is None or each.ratio_high is None:
        return absolute, ""
    relative = f"{each.ratio - 1:+.1%} [{each.ratio_low - 1:+.1%}, {each.ratio_high - 1:+.1%}]"
    return absolute, relative


def _explained(found: Sequence[Difference]) -> str:
    blocks = max((each.blocks for each in found), default=0)
    if not blocks:
        return (
            f"Too few requests for intervals: they need {LEAST_BLOCKS} to {BLOCKS} stretches of the run with "
            "20 requests of each target (P99: 200). Raise --rate or --duration."
        )
    return (
        f"Intervals are over {blocks} stretches of this one run: they say what differed in it. Servers that "
        "are started anew differ by more: repeat the run on fresh ones before you conclude."
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _signed(value: float) -> str:
    return f"{value:+,.1f}" if abs(value) < 1000 else f"{value:+,.0f}"
