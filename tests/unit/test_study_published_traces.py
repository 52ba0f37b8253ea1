"""Arrivals as others publish them: which column has the times, in which unit, in which order.

The samples are written for these tests in the forms that are described at github.com/Azure/AzurePublicDataset
(AzureFunctionsInvocationTrace2021.md, AzureLLMInferenceDataset2023.md), github.com/alibaba/clusterdata
(cluster-trace-microservices-v2021) and github.com/twitter/cache-trace; none of their data is copied.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.fake_study import run_fake

from meshwise.archive.read import ArchiveReader
from meshwise.core.errors import MeshwiseError
from meshwise.load.trace import open_trace, write_trace
from meshwise.study.file.read import load_study
from meshwise.study.load import trace_rows
from meshwise.study.load.profile import TraceFile, TraceForm
from meshwise.study.load.trace import read_trace
from meshwise.study.load.trace_rows import Ints

S, MS = 10**9, 10**6

AZURE_FUNCTIONS = """\
app,func,end_timestamp,duration
a1,f1,5160.25,0.134
b2,f2,5161.5,0.013
c3,f3,5160.75,42.356
"""
AZURE_LLM = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
ALIBABA = """\
"","traceid","timestamp","rpcid","um","rpctype","dm","interface","rt"
"0","t1","16397576","0.1","(?)","http","aa","i,1","13"
"1","t1","16397580","0.1.1","aa","rpc","bb","i;2","-4"
"2","t2","16397571","0","(?)","http","aa","i,1","9"
"""
TWITTER = """\
0,nz:u:eeW5,12,230,7,get,0
0,nz:u:3dcH,12,230,7,get,0
1,q:nz:mH3d,11,18,9,set,3600
3,nz:u:eeW5,12,230,2,get,0
"""
ACCESS_LOG = """\
192.0.2.7 - - [10/Oct/2024:23:59:58 +0200] "GET /a?b=1,2 HTTP/1.1" 200 2326 "-" "curl/8.5.0"
192.0.2.9 - kim [10/Oct/2024:23:59:59 +0200] "GET /[x] HTTP/1.1" 304 0 "-" "Mozilla/5.0 (X11; Linux)"
192.0.2.7 - - [11/Oct/2024:00:00:01 +0200] "POST / HTTP/1.1" 500 12 "-" "curl/8.5.0"
"""
OWN_LOG = "2024-05-01T12:00:00.5Z GET /\n2024-05-01T14:00:00.75+02:00 GET /b c\n2024-05-01T12:00:02Z GET /\n"


def read(directory: Path, text: str, form: TraceForm) -> tuple[Ints, tuple[str, ...]]:
    path = directory / "t.csv"
    path.write_text(text)
    kept: list[Ints] = [np.empty(0, np.int64)]
    found = read_trace(path, 10 * S, kept.append, form)
    return np.concatenate(kept), found.notes


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (AZURE_FUNCTIONS, TraceForm("end_timestamp", "s", sort=True), [0, 500 * MS, 1250 * MS]),
        (AZURE_LLM, TraceForm("TIMESTAMP"), [0, 4_314_579_000]),
        (ALIBABA, TraceForm("timestamp", "ms", sort=True), [0, 5 * MS, 9 * MS]),
        (ALIBABA, TraceForm("3", "ms", sort=True), [0, 5 * MS, 9 * MS]),
        (TWITTER, TraceForm("1", "s"), [0, 0, S, 3 * S]),
        (TWITTER, TraceForm(unit="s"), [0, 0, S, 3 * S]),
        (ACCESS_LOG, TraceForm("4"), [0, S, 3 * S]),
        (OWN_LOG, TraceForm("1", "date"), [0, 250 * MS, 1500 * MS]),
        ("id\tstart_us\n1\t1000\n2\t4000\n", TraceForm("start_us"), [0, 3 * MS]),
        ("when;what\n1;a\n\n2.5;b\n", TraceForm("when", "s"), [0, 1500 * MS]),
        ("at\n7\n8\n", TraceForm("at", "ns"), [0, 1]),
        ('"time_s"\n0\n1\n', TraceForm(), [0, S]),
        ("time_s\n5\n3\n4\n", TraceForm(sort=True), [0, S, 2 * S]),
    ],
)
def test_one_column_is_replayed(tmp_path: Path, text: str, form: TraceForm, expected: list[int]) -> None:
    times, _ = read(tmp_path, text, form)
    assert times.tolist() == expected


def test_times_of_whole_seconds_are_said_because_they_make_bursts(tmp_path: Path) -> None:
    _, notes = read(tmp_path, TWITTER, TraceForm("1", "s"))
    assert notes[0] == "the times of t.csv are whole seconds: those of one second are sent at its beginning"
    _, notes = read(tmp_path, AZURE_LLM, TraceForm("TIMESTAMP"))
    assert not any("whole seconds" in note for note in notes)


def test_rates_are_sorted_too(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("time_s,rate_rps\n2,150\n0,50\n")
    found = read_trace(path, 4 * S, form=TraceForm(sort=True))
    assert found.rate_rps == 100.0
    path.write_text("time_s,rate_rps\n2,150\n0,50\n2,3\n")
    with pytest.raises(MeshwiseError, match="two rates at the time 2"):
        read_trace(path, 4 * S, form=TraceForm(sort=True))


@pytest.mark.parametrize(
    ("text", "form", "where", "what"),
    [
        (ALIBABA, TraceForm("time"), "t.csv:1", "there is no column `time`"),
        (ALIBABA, TraceForm("10"), "t.csv:1", "there is no column `10`"),
        (ALIBABA, TraceForm("timestamp", "ms"), "t.csv:4", "16397571 is not after the one in the row above"),
        (ALIBABA, TraceForm("timestamp"), "t.csv:2", "`16397576` has no unit"),
        (ALIBABA, TraceForm("traceid", "ms"), "t.csv:2", "`t1` is not a number"),
        (AZURE_LLM, TraceForm("TIMESTAMP", "s"), "t.csv:2", "is not a number"),
        ("at,b\n1,2\n3\n4,5\n", TraceForm("b", "s"), "t.csv:3", "a row of 1 without column 2"),
        ('at,b\n1,2\n3,"4\n5,6\n', TraceForm("at", "s"), "t.csv:3", "a quote that does not end in its line"),
        ("at\n2024-01-01\n2024-13-01\n", TraceForm("at"), "t.csv:3", "`2024-13-01` is not a date"),
        ("at\n1\ninf\n", TraceForm("at", "s"), "t.csv:3", "`inf`: times are finite"),
        ("at\n", TraceForm("at", "s"), "t.csv", "it has no row"),
        ("\n", TraceForm("at", "s"), "t.csv:1", "there is no column"),
        ("", TraceForm("at", "s"), "t.csv", "it is empty"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, text: str, form: TraceForm, where: str, what: str
) -> None:
    with pytest.raises(MeshwiseError) as caught:
        read(tmp_path, text, form)
    assert (caught.value.code, caught.value.where) == ("MW113", str(tmp_path / where))
    assert what in caught.value.what


def test_blocks_do_not_change_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "id,at_ms\n" + "".join(f"r{k},{(k * 7919) % 5000}\n" for k in range(5000))
    whole, _ = read(tmp_path, text, TraceForm("at_ms", sort=True))
    monkeypatch.setattr(trace_rows, "_BLOCK_BYTES", 100)
    parts, _ = read(tmp_path, text, TraceForm("at_ms", sort=True))
    assert np.array_equal(whole, np.arange(5000) * MS)
    assert np.array_equal(parts, whole)


def test_the_instrument_reads_it_in_the_same_form(tmp_path: Path) -> None:
    path, form = tmp_path / "t.csv", TraceForm("timestamp", "ms", sort=True)
    path.write_text(ALIBABA)
    source = TraceFile("t.csv", str(path), read_trace(path, S, form=form).sha256, form=form)
    write_trace(source, S, tmp_path / "bin")
    assert open_trace(tmp_path / "bin")[0].tolist() == [0, 5 * MS, 9 * MS]


STUDY = """\
name: replay
environments: [none, istio]
factors: {posture: [none, strict]}
trial: {warmup: 1s, duration: 1s}
blocks: 2
load: {shape: {trace: {file: calls.csv, time_column: timestamp, unit: ms, sort: true}}}
"""


def test_a_study_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text(ALIBABA)
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    study = load_study(path)
    assert study.cells[0].rate_rps == 3.0
    assert study.trial.shape is not None
    assert study.trial.shape.trace is not None
    assert study.trial.shape.trace.form == TraceForm("timestamp", "ms", sort=True)


def test_an_archive_reads_its_copy_in_the_same_form(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text(ALIBABA)
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    study = load_study(path)
    run_fake(tmp_path / "out", study)
    (tmp_path / "calls.csv").unlink()
    again = ArchiveReader.open(tmp_path / "out").study()
    assert again.trial.shape == study.trial.shape
    assert again.trial.shape is not None
    assert again.trial.shape.trace is not None
    write_trace(again.trial.shape.trace, S, tmp_path / "bin")
    assert open_trace(tmp_path / "bin")[0].tolist() == [0, 5 * MS, 9 * MS]


@pytest.mark.parametrize(
    ("before", "after", "where", "what"),
    [
        ("unit: ms", "unit: h", "s.yaml:6:71", "does not fit `unit`"),
        ("sort: true", "sorted: true", "s.yaml:6:75", "did you mean `sort`?"),
        ("file: calls.csv, ", "", "s.yaml:6:16", "`file`"),
        ("timestamp", "time", "s.yaml:6:23", "calls.csv:1: the trace: there is no column `time`"),
    ],
)
def test_a_mistake_in_a_study_has_its_place(
    tmp_path: Path, before: str, after: str, where: str, what: str
) -> None:
    (tmp_path / "calls.csv").write_text(ALIBABA)
    path = tmp_path / "s.yaml"
    path.write_text(STUDY.replace(before, after))
    with pytest.raises(MeshwiseError) as caught:
        load_study(path)
    assert (caught.value.where, what in caught.value.what) == (str(tmp_path / where), True), caught.value
