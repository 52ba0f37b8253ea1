"""The vocabulary of results: what is written is read back as the same values, and documented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.support.earlier import NAMES, unpacked

from meshwise.findings.document import read_finding, row
from meshwise.findings.finding import Adjustment, Method
from meshwise.findings.flag import EXPLORATORY, KINDS, LATE_SENDS, LOST_PAIRS, LOST_WALKS, Flag
from meshwise.findings.metric import METRICS, MetricKey, PartOf, metric_of
from meshwise.findings.reason import BACKLOG, OTHERS, QUANTILE, Blame, read_reasons, write_reasons
from meshwise.findings.subject import STEPS, Interaction, Kind, MeshDifference, read_subject
from meshwise.study.file.keys import METRICS as PRIMARY


@pytest.mark.parametrize("name", NAMES)
def test_every_finding_of_an_archive_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    written = json.loads((unpacked(name, tmp_path) / "findings.json").read_text())["findings"]
    unread = {"companion": None, "without_outliers": None}
    assert [row(read_finding(entry)) for entry in written] == [entry | unread for entry in written]


def test_a_subject_is_a_value_and_no_collection_of_keys() -> None:
    at = {"posture": "strict+request", "protocol": "http1"}
    found = read_subject(Kind.DIFFERENCE, at | {"mesh": "istio", "interaction": "mtls=strict x ..."})
    assert isinstance(found, Interaction)
    assert (found.mtls, found.authorization) == ("strict", "request")
    scope = at | {"mesh": "istio - linkerd", "from": "linkerd", "to": "istio"}
    between = read_subject(Kind.DIFFERENCE, scope)
    assert between == MeshDifference(at | {"mesh": "istio"}, "istio", "linkerd")
    with pytest.raises(KeyError):
        read_subject(Kind.INCREMENT, at)


def test_a_key_knows_what_its_part_is() -> None:
    key = MetricKey("place_memory_bytes", "depth 2")
    assert str(key) == "place_memory_bytes@depth 2"
    assert key.scope == {"workload": "depth 2", "place": "depth 2"}
    assert MetricKey("proxy_memory_bytes", "client").scope == {"workload": "client"}
    assert MetricKey("memory_bytes").scope == {}
    assert metric_of("operation_rps").parts is PartOf.OPERATION


def test_an_unknown_metric_is_read_as_words() -> None:
    found = metric_of("tls_handshakes_us")
    assert (found.title, found.unit, found.more_is_worse) == ("tls handshakes", "us", True)


def test_what_a_study_may_name_as_primary_is_a_metric_that_is_compared() -> None:
    assert [name for name in PRIMARY if name not in METRICS or not METRICS[name].compared] == []


def test_every_metric_and_flag_is_in_the_documents() -> None:
    page = Path("docs/findings.md").read_text()
    section = page.partition("## Metrics")[2].partition("\n\nIn a saturation study")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    told: dict[str, str] = {}
    for line in rows:
        first, *more = re.findall(r"`([a-z0-9_]+)`", line[1])
        ends = [name for name in more if name.startswith("_")]
        stem = re.sub(r"_p50_us$", "", first)
        names = [first, *(f"{stem}{end}_us" for end in ends), *(name for name in more if name not in ends)]
        if "..." in line[1]:
            names += [f"{stem}_{word}_us" for word in ("p90", "p99", "p999", "mean")]
        told |= dict.fromkeys(names, line[2].strip())
    assert [name for name in METRICS if name not in told] == []
    assert [name for name, metric in METRICS.items() if metric.unit not in told[name]] == []
    assert [code for code in KINDS if f"`{code}`" not in page] == []


def test_a_flag_is_a_code_and_facts_until_it_is_written() -> None:
    flag = LOST_PAIRS(blocks=3)
    assert dict(flag.facts) == {"blocks": 3}
    assert flag.code == LOST_WALKS.code, "two things lose pairs, and the remedy is the same"
    assert str(flag).startswith("lost_pairs: 3 blocks have no complete pair")
    again = Flag.read(str(flag))
    assert (again.code, again.words, again.kind.remedy) == (flag.code, flag.words, LOST_PAIRS.remedy)
    counted = Flag.read("late_sends: x: y (in 3 of 8 trials)")
    assert (counted.words, counted.trials, counted.kind) == ("x: y", (3, 8), LATE_SENDS)
    assert Flag.read("unheard_of: words").kind.remedy == ""
    assert EXPLORATORY.whole_table


def test_a_reason_is_told_by_its_template_and_kept_as_it_was() -> None:
    reasons = (
        OTHERS(share=0.3),
        QUANTILE(percent=99.9, shown="among the failed", limit_ms=20),
        BACKLOG(ms=2),
    )
    text = write_reasons(reasons)
    assert read_reasons(text) == reasons
    assert [each.short for each in reasons] == ["others", "p99.9", "backlog"]
    assert [each.kind.blame for each in reasons] == [Blame.HOST, Blame.SYSTEM, Blame.SYSTEM]
    (other,) = read_reasons("the proxy of node-1 ended")
    assert (other.words, other.kind.blame) == ("the proxy of node-1 ended", Blame.UNKNOWN)
    assert read_reasons("") == ()


def test_an_adjustment_and_every_step_are_written_once() -> None:
    assert Adjustment.read("holm, 5 comparisons") == Adjustment(Method.HOLM, 5)
    assert len({(step.factor, step.part) for step in STEPS}) == len(STEPS)
