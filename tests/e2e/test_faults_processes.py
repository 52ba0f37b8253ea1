"""A proxy, a service, an instrument killed in the middle of a trial of a real study."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.real_study import (
    ME,
    RealRun,
    Seen,
    kill,
    namespaces,
    need_real_proxies,
    nothing_stays,
    private_directory,
    records,
    traces,
)


@pytest.fixture(autouse=True)
def directory() -> Iterator[Path]:
    need_real_proxies()
    with private_directory(ME, blocks=2, duration="800ms") as made:
        yield made


def in_the_middle(run: RealRun, process: subprocess.Popen[str]) -> Seen:
    """The instrument of a trial of Istio, once it records: then its two sidecars serve it."""

    def recording() -> Seen | None:
        found = run.in_pod_of_sidecar(process, "instrument")
        return next((one for one in found if records(one)), None)

    return run.await_(process, recording, "an instrument that records")


@pytest.mark.parametrize(
    ("role", "harm"),
    [
        ("proxy", signal.SIGSEGV),  # as when it has a defect: Envoy then logs where
        ("service", signal.SIGKILL),
        ("instrument", signal.SIGKILL),
    ],
)
def test_a_process_killed_during_a_trial_fails_it_and_it_is_tried_once_more(
    directory: Path, role: str, harm: signal.Signals
) -> None:
    run, before = RealRun(directory), traces()
    with run.started() as process:
        instrument = in_the_middle(run, process)
        everyone = run.everyone(process)
        kill(instrument if role == "instrument" else run.in_pod_of_sidecar(process, role)[0], harm)
        spaces = namespaces(everyone)
        status, (_, told) = process.wait(120), process.communicate()
    nothing_stays(run, everyone, spaces, before)
    assert status == 0, told

    rows = run.rows()
    [failed] = [row for row in rows if row["status"] == "failed"]
    [again] = [row for row in rows if row["attempt"] == 1]
    others = [row for row in rows if row not in (failed, again)]
    assert f"/{role} killed by {harm.name}" in str(failed["failure"])
    assert failed["requests_rows"] is not None, "what was recorded until then is kept"
    kept = {
        path.name: path.read_text()
        for path in (directory / "out/failures" / str(failed["trial_id"])).iterdir()
    }
    assert any(name.endswith(".proxy.log") for name in kept)
    dumps = [text for name, text in kept.items() if name.endswith(".config_dump.json")]
    assert any("virtualInbound" in text for text in dumps), "the sidecar that lives on tells what it had"
    assert not any("PRIVATE KEY" in text or "Bearer ey" in text for text in kept.values())
    if role == "proxy":
        assert "Caught Segmentation fault" in str(failed["log_tail"])
    assert again["trial_id"] == f"{failed['trial_id']}-r1"
    assert (again["status"], again["cell"], again["block"]) == ("ok", failed["cell"], failed["block"])
    assert {row["status"] for row in others} == {"ok"}
    assert len(others) == 3, "the study went on"
    in_block = [row["trial_id"] for row in rows if row["block"] == failed["block"]]
    assert in_block[-1] == again["trial_id"], "at the end of its block"
    line = f"{failed['trial_id']} {failed['cell']}: failed (tried again at the end of its block)"
    assert line in told, "said at once"
    assert "5 trials in" in told
    assert "; 1 failed; archive in" in told
