"""What a study takes beside its windows, against runs that were recorded; what it needs at one time."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from meshwise.cli.plan import plan_document, show_plan
from meshwise.study.design.estimate import doubts, estimate
from meshwise.study.design.needs import needs_of
from meshwise.study.design.overhead import round_s, start_s
from meshwise.study.design.rounds import block_rounds
from meshwise.study.file.read import parse_study
from meshwise.study.model import Arrangement, MeshName, Study
from meshwise.testbed.local import checks

STUDIES = Path(__file__).parents[2] / "studies"
RECORDED = {
    # study: (start of an execution, largest round beside its window, blocks, window, whole run), seconds on
    # two CPUs without other work. From `apply_ns`, `prove_ns`, `measure_ns`, `stored_unix_ns` of the trials.
    "quickstart": (2.86, 0.36 + 7 * 0.10, 10, 5, 230.0),
    "quickstart-meshes": (7.37, 0.40 + 13 * 0.10, 8, 6, 189.0),
}


def study(text: str) -> Study:
    return parse_study(f"name: x\nseed: 7\n{text}", "s.yaml")


@pytest.mark.parametrize("name", RECORDED)
def test_the_time_of_a_run_is_known_beforehand(name: str) -> None:
    started_s, beside_s, blocks, window_s, run_s = RECORDED[name]
    # They were recorded before some trials ran alone, and with so many blocks of such windows.
    text = re.sub(r"^alone: \d+", "alone: 0", (STUDIES / f"{name}.yaml").read_text(), flags=re.MULTILINE)
    text = re.sub(r"^blocks: \d+", f"blocks: {blocks}", text, flags=re.MULTILINE)
    text = re.sub(r"^  duration: \d+s", f"  duration: {window_s}s", text, flags=re.MULTILINE)
    found = parse_study(text, f"{name}.yaml")
    assert found.alone == 0
    assert start_s(found) == pytest.approx(started_s, rel=0.1)
    assert round_s(max(block_rounds(found), key=len)) == pytest.approx(beside_s, rel=0.2)
    assert estimate(found).wall_s == pytest.approx(run_s, rel=0.1)


def test_more_sidecars_and_more_arms_take_longer_to_start_and_to_prove() -> None:
    short = study("environments: [none, istio]\nfactors: {posture: [none, strict]}\n")
    long = study("environments: [none, istio]\nfactors: {posture: [none, strict], length: 4}\n")
    assert start_s(long) > 2.5 * start_s(short)
    pinned = study("environments: [none, istio]\nfactors: {posture: [none, strict]}\npin: true\n")
    assert start_s(pinned) > 1.5 * start_s(short), "all of it on one CPU"
    assert round_s(block_rounds(long)[0]) > round_s(block_rounds(short)[0])


def test_all_environments_of_a_study_are_counted_with_their_largest_topology() -> None:
    chains = study("environments: [istio, linkerd]\nfactors: {posture: strict, length: [1, 4]}\n"
                   "control: {twin: none}\n")  # fmt: skip
    needs = needs_of(chains)
    assert needs.environments == 2
    assert needs.workloads == {MeshName.ISTIO: 5, MeshName.LINKERD: 5}
    assert (needs.envoys, needs.sidecars, needs.controllers) == (5, 10, 1)
    assert needs.memory_bytes == (5 * (43 + 24) + 26) << 20
    banks = study("environments: [none, istio]\ntopology: bank\nfactors: {posture: [none, strict]}\n"
                  "control: {twin: none}\n")  # fmt: skip
    assert banks.arrangement is Arrangement.TOGETHER
    assert (needs_of(banks).banks, needs_of(banks).envoys) == (2, 8)


def test_the_connections_of_a_whole_round_are_counted() -> None:
    text = "environments: [none, istio]\nfactors: {posture: [none, strict], connections: [16, 100]%s}\n%s"
    assert needs_of(study(text % ("", ""))).connections == 2 * 100, "no mesh and strict"
    assert needs_of(study(text % ("", "arrangement: apart\n"))).connections == 100
    assert needs_of(study(text % (", churn: 10/s", ""))).connections == 2 * 2 * 100
    counted = study(text % ("", "count: {connections: 50, requests: 50, at_once: 3}\n"))
    assert needs_of(counted, counting=True).connections == 3 * 50, "three lives at once"


def test_plan_says_what_a_study_needs_and_what_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three Istio environments on a chain of four."""
    monkeypatch.setattr(checks, "available_bytes", lambda: 700 << 20)
    long = study("environments: [istio]\nfactors: {posture: [plaintext, strict], length: 4}\n")
    assert [len(arms) for arms in block_rounds(long)] == [3]
    document = plan_document(long)
    wanted = (15 * 43 + 3 * 26) << 20
    assert document["needs"].items() >= {
        "environments": 3, "sidecars": 15, "memory_bytes": wanted, "inotify_instances": 0,
    }.items()  # fmt: skip
    (lack,) = (each for each in document["doubts"] if "MW215" in each)
    assert "3 environments with 15 sidecars" in lack
    stream = StringIO()
    show_plan(long, Path("my.yaml"), Console(file=stream, width=300))
    assert "at the same time: 3 environments, 15 Envoys, about 723MiB of memory" in stream.getvalue()
    short = study("environments: [istio]\nfactors: {posture: [plaintext, strict], length: 3}\n")
    assert not any("MW215" in each for each in plan_document(short)["doubts"])


def test_a_round_that_may_be_crowded_is_warned_of_by_its_hops() -> None:
    """7 arms at 80/s through two sidecars take at most 0.5 CPUs; along a chain of four 2."""
    factors = "environments: [none, istio]\nfactors: {posture: ladder, rate: 80/s, length: %d}\n"
    assert not any("arms wait" in each for each in doubts(study(factors % 1)))
    (doubt,) = (each for each in doubts(study(factors % 4)) if "arms wait" in each)
    assert "comparisons of tails are flagged" in doubt


def test_a_traced_study_waits_for_its_exporters_and_has_room_for_spans() -> None:
    text = (
        "environments: [none, linkerd]\nfactors: {{posture: [none, strict], rate: 100/s, tracing: [0%{0}]}}\n"
        "trial: {{warmup: 1s, duration: 4s}}\nblocks: 2\nalone: 0\ncontrol: {{twin: none}}\n"
    )
    plain, traced = study(text.format("")), study(text.format(", 50%"))
    assert needs_of(plain).spans == 0
    assert needs_of(traced).spans == 2 * 100 * 0.5 * 6 * 5, (
        "two arms, half of the requests, a hop, five seconds"
    )
    (arms,) = block_rounds(traced)
    (untraced,) = block_rounds(plain)
    assert round_s(arms) - round_s(untraced) > 10, "linkerd2-proxy sends what it has every ten seconds"
    each = estimate(traced).disk_bytes / estimate(traced).trials
    assert each > estimate(plain).disk_bytes / estimate(plain).trials + 50_000
