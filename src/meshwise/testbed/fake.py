"""A testbed without a proxy: synthetic numbers from a seed, so that a whole study takes a second.

It exists to test runner, archive, resume, analysis and reports, and says `"testbed": "fake"` in its
environment, so that no report passes it for real. The model is simple and its truth is known (`fake_truth`):

    log(median of a trial) = log(cell's truth) + block + execution of this set of processes + run

with normal noise of declared size; requests of a trial are lognormal around that median and late now and
then; around events there is what `fake_effects` plants. Trials are independent of the order of running: all
noise comes from (seed, block, trial).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from meshwise.core import messages
from meshwise.load.schedule import shaped_times_ns
from meshwise.mesh.seam import Check, Proof
from meshwise.study.model import (
    Arrangement,
    MtlsMode,
    Role,
    Study,
    Trial,
    TrialPlan,
)
from meshwise.telemetry.source import Source
from meshwise.testbed import fake_counting, fake_effects, fake_events, fake_spans
from meshwise.testbed.fake_counting import CountingNoise
from meshwise.testbed.fake_reach import reached_pods
from meshwise.testbed.fake_truth import (
    CAPACITY_CPUS,
    INSTRUMENT_CPU,
    NODE_CPU_US,
    POD_CPU,
    SAMPLES_PER_S,
    STATUS,
    TAIL,
    WARMING_S,
    draws_of,
    normal_of,
)
from meshwise.testbed.fake_truth import SimulatedNoise as SimulatedNoise
from meshwise.testbed.fake_truth import capacity_rps as capacity_rps
from meshwise.testbed.fake_truth import truth as truth
from meshwise.testbed.seam import LiveProgress, Measurement, Observe, ReachedPods


class FakeTestbed:
    """The seam `Testbed` with made-up numbers. Faults are given by trial_id:

    `crashes`: the proxy ends half-way (a re-try, which has its own id, goes well unless named too);
    `unproven`: a check fails; `refuses`: the proxy refuses the posture; `interrupts`: KeyboardInterrupt
    while measuring. `thin`: keep only every n-th request. `instrument_rps`: in a saturation study the
    instrument falls behind above this rate; `lock`: what it is that fills up is no CPU; `stolen`: share of
    the host's CPU that its hypervisor takes. `busy`: number of a round -> share of the pods' CPU that is used
    in it, where that is to be told; `saturated`: trials whose backlog grows. `uncounted`: counting trial ->
    numbers of the windows in which a request fails. `warming`: posture -> share by which time and
    sidecars' CPU of a request are higher at time 0, which falls by a factor e every WARMING_S.
    """

    def __init__(
        self,
        study: Study,
        *,
        seed: int = 0,
        noise: SimulatedNoise | None = None,
        crashes: Collection[str] = (),
        unproven: Collection[str] = (),
        refuses: Collection[str] = (),
        interrupts: Collection[str] = (),
        thin: int = 1,
        instrument_rps: float = np.inf,
        lock: bool = False,
        stolen: float = 0.0,
        busy: Mapping[int, float] | None = None,
        saturated: Collection[str] = (),
        counting_noise: CountingNoise | None = None,
        uncounted: Mapping[str, Collection[int]] | None = None,
        warming: Mapping[str, float] | None = None,
    ) -> None:
        self.study = study
        self.seed = seed
        self.noise = noise or SimulatedNoise()
        self.crashes, self.unproven, self.refuses, self.interrupts = crashes, unproven, refuses, interrupts
        self.thin = thin
        self.instrument_rps = instrument_rps
        self.lock, self.stolen = lock, stolen
        self.busy, self.saturated = busy or {}, saturated
        self.counting_noise = counting_noise or CountingNoise()
        self.uncounted = uncounted or {}
        self.warming = warming or {}
        self.log: list[str] = []
        """What was asked of it, one word and id each: for tests of the order of things."""
        self._entered = False
        self._company = False
        """Whether what is measured now has other arms beside it."""

    def __enter__(self) -> Self:
        self._entered = True
        return self

    def __exit__(self, *exc: object) -> None:
        self._entered = False
        self.log.append("exit")

    def environment(self) -> Mapping[str, object]:
        return {
            "testbed": "fake",
            "note": "synthetic numbers; nothing was measured",
            "seed": self.seed,
            "workers": self.study.proxy_workers,
            "cpus": {"instrument": [INSTRUMENT_CPU], "others": [POD_CPU]},
            "proxies": {str(mesh): {"build": "fake"} for mesh in self.study.environments},
            "fidelity": [],
        }

    def restart(self, execution: int) -> None:
        self._note(f"restart {execution}")

    def apply(self, trial: Trial) -> None:
        self._note(f"apply {trial.trial_id}")
        if trial.trial_id in self.refuses:
            raise messages.FAKE_REFUSAL.error(posture=trial.cell.posture.name)

    def prove(self, trial: Trial) -> Proof:
        self._note(f"prove {trial.trial_id}")
        tls = trial.cell.posture.mtls in (MtlsMode.PERMISSIVE, MtlsMode.STRICT)
        expected = "TLSv1.3" if tls else "plaintext"
        observed = "plaintext of another posture" if trial.trial_id in self.unproven else expected
        check = Check("transport", expected, observed, observed == expected)
        return Proof((check,), {"tls_version": expected, "build": "fake"}, duration_ns=1_000_000)

    def resources(self, trial: Trial) -> str:
        return f"# fake resources\nposture: {trial.cell.posture.name}\nmesh: {trial.cell.mesh}\n"

    def state(self, trial: Trial) -> Mapping[str, str]:
        return {"fake.log": f"{trial.trial_id} did not end well\n"}

    def measure(self, trials: Sequence[Trial], observe: Observe) -> Mapping[str, Measurement]:
        self._company = len(trials) > 1
        return {
            trial.trial_id: self._count(trial, observe)
            if trial.role is Role.COUNT
            else self._measure(trial, observe)
            for trial in trials
        }

    def _count(self, trial: Trial, observe: Observe) -> Measurement:
        self._note(f"count {trial.trial_id}")
        if trial.trial_id in self.interrupts:
            raise KeyboardInterrupt
        assert self.study.counting is not None, "a counting trial is of a study that counts"
        found = fake_counting.count(
            self.study.counting, trial, self.seed, self.counting_noise, self.uncounted.get(trial.trial_id, ())
        )
        observe(LiveProgress(0.1, found.requests.num_rows, None))
        if trial.trial_id in self.crashes:
            source = Source(trial.cell.mesh, trial.process_set, trial.cell.topology.entry.name, "proxy")
            return replace(found, failure=f"{source} ended with status 139", counts=None)
        return found

    @contextmanager
    def reached(self, trial: Trial) -> Iterator[ReachedPods]:
        yield reached_pods(self.study, trial)

    def revive(self, trial: Trial, silent: Collection[str] = ()) -> Sequence[str]:
        return [f"{trial.cell.mesh}/{trial.process_set}/{name}/proxy fell silent" for name in silent]

    def _measure(self, trial: Trial, observe: Observe) -> Measurement:
        self._note(f"measure {trial.trial_id}")
        if trial.trial_id in self.interrupts:
            raise KeyboardInterrupt
        crashed = trial.trial_id in self.crashes
        events = fake_events.events_of(self.study, trial)
        requests, telemetry = fake_effects.planted(
            self._requests(trial, until_share=0.5 if crashed else 1.0), self._telemetry(trial), events,
            self.study, trial,
        )  # fmt: skip
        observe(
            LiveProgress(self.study.window_ns(trial) / 1e9, requests.num_rows, truth(trial.cell).service_us)
        )
        proxy = str(Source(trial.cell.mesh, trial.process_set, trial.cell.topology.entry.name, "proxy"))
        return Measurement(
            requests=requests,
            telemetry=telemetry,
            started_unix_ns=time.time_ns(),
            instrument={
                "limited_by": "none",
                "lateness_p99_us": 40.0,
                "cpu_us_per_request": 12.0,
                "cpu_share": 0.97 if trial.cell.rate_rps > self.instrument_rps else 0.3,
            },
            failure=f"{proxy} ended with status 139" if crashed else "",
            log_tail="[critical] caught segmentation fault (fake)" if crashed else "",
            events=events,
            spans=fake_spans.spans(self.seed, trial, requests),
            profiles=_fake_stacks(proxy) if trial.role is Role.PROFILE else None,
        )

    def _note(self, what: str) -> None:
        assert self._entered, "a testbed is used inside `with`"
        self.log.append(what)

    def _factor(self, trial: Trial, quantity: str) -> float:
        """This trial's multiplicative noise in one quantity (`time`, `cpu`)."""
        processes = (trial.cell.mesh, trial.process_set, trial.execution)
        noise = self.noise
        return float(
            np.exp(
                noise.block * normal_of(self.seed, "block", trial.block, quantity)
                + noise.execution * normal_of(self.seed, "execution", *processes, quantity)
                + noise.run * normal_of(self.seed, "run", self._moment(trial), quantity)
                + noise.arm * normal_of(self.seed, "arm", trial.trial_id, quantity)
                + noise.company * self._company
            )
        )

    def _moment(self, trial: Trial) -> str:
        """What happens to the machine meets all arms of a round."""
        if self.study.arrangement is Arrangement.TOGETHER:
            return f"round {trial.round} attempt {trial.attempt}"
        return trial.trial_id

    def _requests(self, trial: Trial, until_share: float) -> pa.Table:
        plan = self.study.trial
        step_ns = self.thin * 1e9 / trial.cell.rate_rps
        end_ns = self.study.window_ns(trial) * until_share
        intended = np.arange(-plan.warmup_ns, end_ns, step_ns).astype(np.int64)
        if plan.shape is not None:
            intended = self._moving(trial, plan)[:: self.thin]
            intended = intended[intended < end_ns]
        rng = draws_of(self.seed, "requests", trial.trial_id)
        median_ns = truth(trial.cell).service_us * 1e3 * self._factor(trial, "time")
        service = (median_ns * rng.lognormal(0.0, TAIL, len(intended))).astype(np.int64)
        sent = intended + rng.exponential(2_000, len(intended)).astype(np.int64)
        if warm := self.warming.get(trial.cell.posture.name):
            cold = np.exp(-np.maximum(intended, 0) / (WARMING_S * 1e9))
            service = (service * (1 + warm * cold)).astype(np.int64)
        if trial.trial_id in self.saturated:
            service += ((intended - intended[0]) * 0.1).astype(np.int64)
        if self.study.search is not None:
            service += self._waits_ns(trial, intended, service, rng)
            behind = max(0.0, trial.cell.rate_rps / self.instrument_rps - 1)
            sent += ((intended - intended[0]) * behind).astype(np.int64)
        late = sent + service - intended > plan.timeout_ns
        error = pa.DictionaryArray.from_arrays(pa.array(late.astype(np.int8)), ["", "timeout"])
        return pa.table(
            {
                "intended_ns": intended,
                "sent_ns": sent,
                "first_byte_ns": pa.array(sent + (service * 0.97).astype(np.int64), mask=late),
                "done_ns": pa.array(sent + service, mask=late),
                "status": np.full(len(intended), STATUS[trial.cell.protocol], np.int32),
                "bytes": np.full(len(intended), trial.cell.response_bytes, np.int64),
                "error": error,
            }
        )

    def _moving(self, trial: Trial, plan: TrialPlan) -> npt.NDArray[np.int64]:
        """Intended times under a shape; a trace only by its tenths of a second."""
        assert plan.shape is not None
        seed = zlib.crc32(f"{self.seed} block {trial.block}".encode())
        whole = shaped_times_ns(
            plan.arrivals, trial.cell.rate_rps, plan.shape, plan.warmup_ns, plan.duration_ns, seed
        )
        return whole - plan.warmup_ns

    def _waits_ns(
        self,
        trial: Trial,
        intended: npt.NDArray[np.int64],
        service_ns: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.int64]:
        """What a request waits for those before it: exponential below capacity (as in an M/M/1 queue), and
        above it a backlog that grows with time."""
        load = trial.cell.rate_rps / capacity_rps(trial.cell) * self._factor(trial, "capacity")
        below = min(load, 0.999)
        mean_ns = float(service_ns.mean()) * below / (1 - below)
        waits = rng.exponential(mean_ns, len(intended)) * (rng.random(len(intended)) < below)
        backlog = (intended - intended[0]) * max(0.0, load - 1)
        return np.asarray(waits + backlog, dtype=np.int64)

    def _telemetry(self, trial: Trial) -> pa.Table:
        """CPU (cumulative) and memory of every process of the trial's topology, from START to END."""
        cell, window_ns = trial.cell, self.study.window_ns(trial)
        seconds = window_ns / 1e9
        t_ns = np.linspace(0, window_ns, max(2, int(seconds * SAMPLES_PER_S) + 1)).astype(np.int64)
        answered = cell.rate_rps / self.thin * t_ns / 1e9 * self._served(trial)
        fact, noise = truth(cell), self._factor(trial, "cpu")
        names = [workload.name for workload in cell.topology.workloads]
        slow, node_ns = 1.0, 15_000.0
        if self.study.search is not None:
            slow, node_ns = (0.5 if self.lock else 1.0) / CAPACITY_CPUS, NODE_CPU_US * 1e3
        per_request_ns = {f"{names[0]}/instrument": 12_000.0}
        per_request_ns |= {f"{name}/service": node_ns * slow for name in names[1:]}
        if cell.posture.mtls is not None:
            share_ns = fact.proxy_cpu_us * 1e3 / len(names) * noise * slow
            per_request_ns |= {f"{name}/proxy": share_ns for name in names}
        rows: list[tuple[str, str, str, npt.NDArray[np.floating], npt.NDArray[np.integer]]] = []
        ends_at = [0, -1]
        ends = t_ns[ends_at]
        warm = self.warming.get(cell.posture.name, 0.0)  # cost so far: the sum of what each second costs
        warmed = warm * cell.rate_rps / self.thin * WARMING_S * -np.expm1(-t_ns / (WARMING_S * 1e9))
        for who, cost_ns in per_request_ns.items():
            source = f"{cell.mesh}/{trial.process_set}/{who}"
            rss = np.full(len(t_ns), fact.proxy_rss_bytes if who.endswith("proxy") else 25e6)
            rows.append(
                (source, "cpu_ns", "", 5e8 + (answered + warmed * who.endswith("proxy")) * cost_ns, t_ns)
            )
            rows.append((source, "rss_bytes", "", rss, t_ns))
            rows.append((source, "pss_bytes", "", rss[:2] * 0.8, ends))
        if self.study.search is not None:
            rows += self._host(per_request_ns, answered[ends_at], ends)
        elif (busy := self.busy.get(trial.round)) is not None:
            idle_ns = np.array([0.0, (1 - busy) * window_ns])
            rows.append(("host", "cpu_idle_ns", f"cpu={POD_CPU}", 1e9 + idle_ns, ends))
        return pa.table(
            {
                "t_ns": np.concatenate([times for *_, times in rows]),
                "source": [source for source, *_, times in rows for _ in times],
                "metric": [metric for _, metric, *_, times in rows for _ in times],
                "labels": [labels for *_, labels, _, times in rows for _ in times],
                "value": np.concatenate([values for *_, values, _ in rows]),
            }
        )

    def _served(self, trial: Trial) -> float:
        """Share of what is offered that is served: all of it below capacity."""
        if self.study.search is None:
            return 1.0
        load = trial.cell.rate_rps / capacity_rps(trial.cell) * self._factor(trial, "capacity")
        return min(1.0, 1 / load)

    def _host(
        self,
        per_request_ns: Mapping[str, float],
        answered: npt.NDArray[np.floating],
        t_ns: npt.NDArray[np.int64],
    ) -> list[tuple[str, str, str, npt.NDArray[np.floating], npt.NDArray[np.integer]]]:
        """Two CPUs, the instrument's and the pods', at START and END."""
        over_ns, count = float(t_ns[-1] - t_ns[0]), float(answered[-1] - answered[0])
        instrument_ns = sum(ns for who, ns in per_request_ns.items() if who.endswith("instrument")) * count
        pods_ns = min(over_ns, sum(per_request_ns.values()) * count - instrument_ns)
        idle_ns = {INSTRUMENT_CPU: over_ns - instrument_ns, POD_CPU: over_ns - pods_ns}
        stolen_ns = 2 * over_ns * self.stolen
        modes_ns = {
            "user": instrument_ns + pods_ns,
            "steal": stolen_ns,
            "idle": max(0.0, sum(idle_ns.values()) - stolen_ns),
        }
        counters = [("host_cpu_ns", f"mode={mode}", ns) for mode, ns in modes_ns.items()]
        counters += [("cpu_idle_ns", f"cpu={number}", ns) for number, ns in idle_ns.items()]
        return [("host", metric, labels, np.array([1e9, 1e9 + ns]), t_ns) for metric, labels, ns in counters]


def _fake_stacks(source: str) -> pa.Table:
    """As a profiler would tell them."""
    return pa.table(
        {
            "source": [source] * 2,
            "tool": ["perf"] * 2,
            "hertz": [499] * 2,
            "thread": ["worker"] * 2,
            "stack": ["main;serve;encrypt", "main;serve"],
            "samples": [30, 10],
        }
    )
