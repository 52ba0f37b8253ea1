"""What a study needs from a machine, each checked by doing it. Behind `meshwise doctor`, and before each run.

A check is a function that returns `CheckResult`s and never raises for what it looks for. Figures that grade a
machine are constants with their reason; what they mean for a measurement is in docs/how-it-measures.md.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from meshwise.core import linux, messages
from meshwise.core.errors import MeshwiseError
from meshwise.core.memory import available_bytes
from meshwise.core.patience import USUAL
from meshwise.core.units import format_size, plural
from meshwise.mesh.istio import binary as envoy_binary
from meshwise.mesh.istio.istiod import binary as istiod_binary
from meshwise.mesh.linkerd import binary as linkerd_binary
from meshwise.study.design.needs import Needs, needs_of
from meshwise.study.model import ControlPlane, MeshName, Study
from meshwise.telemetry.counting import perf_events, valgrind
from meshwise.telemetry.counting.callgrind import CallgrindCounter
from meshwise.telemetry.profiling import why_no_perf, why_no_pyspy
from meshwise.testbed.applications import choose
from meshwise.testbed.local import host, kernel_probe
from meshwise.testbed.local.world import enter_world

BUSY_SHARE = 0.15
"""Load from others above this share of all CPUs shows in the tail of latencies on two cores."""
STOLEN_SHARE = 0.01
PRESSURE_SHARE = 0.2
CLOCK_NS = 200.0
"""A clock that costs more is read by system call, not from user space."""
MEMORY_BYTES = 1 << 30
"""Two environments of two Envoys and two services each, the instrument, and room for its records."""
DISK_BYTES = 1 << 30
OPEN_FILES = 4096
TASKS = 1024
_PROMTOOL_S = 20.0


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """A study runs, with less to trust or without a mesh."""
    FAILED = "failed"
    """A study cannot run."""


@dataclass(frozen=True)
class CheckResult:
    """One line of the list: a positive sentence, whether it holds, and what to do if it does not."""

    category: str
    name: str
    grade: Grade
    detail: str = ""
    remedy: str = ""


def graded(
    category: str,
    name: str,
    holds: bool,
    detail: str = "",
    remedy: str = "",
    otherwise: Grade = Grade.FAILED,
) -> CheckResult:
    """OK when it holds, else `otherwise` with the remedy."""
    return CheckResult(category, name, Grade.OK if holds else otherwise, detail, "" if holds else remedy)


def all_checks(watch_s: float = 1.0) -> tuple[CheckResult, ...]:
    """Every check in order of reading; takes about `watch_s` and half a second more."""
    made = kernel()
    return (
        *made,
        privileges(world=made[0].grade is Grade.OK),
        *cpu(watch_s),
        *clock(),
        *memory(),
        *disk(),
        *limits(),
        envoy(),
        linkerd(),
        istiod(),
        *counting(),
        *profilers(),
        prometheus(),
        *python(),
    )


def preflight(study: Study) -> None:
    """Raise the first thing that keeps this study from running, before anything starts: MW504, MW403 (no
    Envoy), MW811 or MW423 (no linkerd2-proxy), MW440 (no istiod, where it is asked for), MW911, MW912 or
    MW914 (no store, or nothing to talk to it), MW215 or MW216 (not enough memory or open files for all that
    runs at the same time), MW230 or MW231 (no valgrind, where nothing else is to be done)."""
    if MeshName.ISTIO in study.environments:
        envoy_binary.facts(envoy_binary.envoy_path())
    if MeshName.LINKERD in study.environments:
        linkerd_binary.facts(linkerd_binary.proxy_path())
    if study.control_plane is ControlPlane.ISTIOD:
        istiod_binary.facts(istiod_binary.istiod_path())
    choose.require(study)
    for result in (*limits(), *memory(), *kernel()):
        if result.grade is Grade.FAILED:
            raise messages.CANNOT_RUN.error(
                name=result.name, detail=result.detail or "it does not hold", remedy=result.remedy
            )
    if study.timed:
        require_room(needs_of(study))
    if study.counting is not None:
        try:
            valgrind.find(os.environ)
        except MeshwiseError:
            if not study.timed:  # else what is timed goes on without it
                raise
        else:
            require_room(needs_of(study, counting=True))


# --- kernel and privileges -------------------------------------------------------------------------


def kernel() -> tuple[CheckResult, ...]:
    """Namespaces, links, nat redirection: made, used, and gone again."""
    report_in, report_out = os.pipe()

    def inside() -> int:
        with os.fdopen(report_out, "w") as pipe:
            json.dump([asdict(result) for result in _try_network()], pipe)
        return 0

    name = "isolated namespaces can be made (network, mount, PID, and user unless root)"
    with os.fdopen(report_in) as pipe:
        try:
            enter_world(inside)
        except MeshwiseError as error:
            return (CheckResult("kernel", name, Grade.FAILED, error.what, namespace_remedy()),)
        finally:
            os.close(report_out)
        rows = json.loads(pipe.read())
    entered = CheckResult("kernel", name, Grade.OK)
    return (entered, *(CheckResult(**{**row, "grade": Grade(row["grade"])}) for row in rows))


def _try_network() -> list[CheckResult]:
    links = _attempt(
        "pods can be wired together (bridge, veth)",
        kernel_probe.try_links,
        "as root: `modprobe -a bridge veth`; or use a kernel that has them",
    )
    if links.grade is Grade.FAILED:
        return [links]
    capture = _attempt(
        "connections are redirected and keep their destination (nf_tables nat and redir, conntrack)",
        kernel_probe.try_capture,
        "as root: `modprobe -a nft_chain_nat nft_redir nf_conntrack`; or use a kernel that has them",
    )
    return [links, capture]


def _attempt(name: str, action: Callable[[], None], remedy: str) -> CheckResult:
    try:
        action()
    except MeshwiseError as error:
        return CheckResult("kernel", name, Grade.FAILED, error.what, remedy)
    except OSError as error:
        return CheckResult("kernel", name, Grade.FAILED, str(error), remedy)
    return CheckResult("kernel", name, Grade.OK)


def namespace_remedy(root: Path = Path("/")) -> str:
    """Which switch forbids user namespaces here, as far as the kernel tells."""
    switches = {
        "user.max_user_namespaces": ("0", "10000"),
        "kernel.unprivileged_userns_clone": ("0", "1"),
        "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    }
    for name, (forbids, allows) in switches.items():
        path = root / "proc/sys" / name.replace(".", "/")
        if path.exists() and path.read_text().strip() == forbids:
            return f"as root: `sysctl -w {name}={allows}`; or run meshwise as root"
    return "run meshwise as root; in a container give it CAP_SYS_ADMIN and CAP_NET_ADMIN"


def privileges(*, world: bool) -> CheckResult:
    """`world`: whether one could be made."""
    if os.geteuid() == 0 and linux.maps_uid(65534):
        detail = "root: sidecars run under their meshes' own uids, and capture goes by uid as on a cluster"
    else:
        detail = "ordinary user: one uid in a user namespace, so only service addresses are captured"
    name = "a study may have namespaces of its own"
    return graded("privileges", name, world, detail, namespace_remedy())


# --- machine ---------------------------------------------------------------------------------------


def cpu(watch_s: float) -> tuple[CheckResult, ...]:
    """Watches the machine for `watch_s` seconds."""
    count = len(os.sched_getaffinity(0))
    busy, stolen = host.load_over(watch_s)
    chosen = host.governor()
    pressure = host.pressure()
    warn = Grade.WARNING
    return (
        graded("cpu", "at least two CPUs", count >= 2, f"{count}", "give the machine a second CPU", warn),
        graded(
            "cpu", "clock frequency is fixed", chosen in (None, "performance"),
            chosen or "not the guest's to choose" if host.hypervisor() else chosen or "no governor",
            "as root: `cpupower frequency-set -g performance`", warn,
        ),
        graded(
            "cpu", "nothing else keeps the CPUs busy", busy <= BUSY_SHARE, f"{busy:.0%} busy",
            "stop other programs while a study runs; the A/A control shows what they cost", warn,
        ),
        graded(
            "cpu", "the hypervisor takes no CPU time away", stolen <= STOLEN_SHARE, f"{stolen:.1%} stolen",
            "use a machine with dedicated CPUs, or more blocks", warn,
        ),
        graded(
            "cpu", "tasks do not wait for a CPU", pressure is None or pressure <= PRESSURE_SHARE,
            "the kernel does not tell (no PSI)" if pressure is None else f"{pressure:.0%} of the last 10 s",
            "stop other programs while a study runs", warn,
        ),
    )  # fmt: skip


def clock() -> tuple[CheckResult, ...]:
    source, cost_ns = host.clock_source(), host.clock_cost_ns()
    detail = f"{source or 'unknown source'}, {cost_ns:.0f} ns a reading"
    remedy = "boot with `clocksource=tsc` if the machine has a stable one"
    return (
        graded("clock", "the clock is cheap to read", cost_ns <= CLOCK_NS, detail, remedy, Grade.WARNING),
    )


def memory() -> tuple[CheckResult, ...]:
    free = host.memory_bytes("MemAvailable")
    name = f"at least {format_size(MEMORY_BYTES)} of memory available"
    return (
        graded(
            "memory", name, free >= MEMORY_BYTES, format_size(free), "free memory, or run a smaller study"
        ),
    )


def disk() -> tuple[CheckResult, ...]:
    places = {"here": Path.cwd(), "for temporary files": Path(tempfile.gettempdir())}
    return tuple(_room_on(where, path) for where, path in places.items())


def _room_on(where: str, path: Path) -> CheckResult:
    free = host.free_bytes(path)
    name = f"at least {format_size(DISK_BYTES)} free {where}"
    remedy = "free space; `meshwise plan` tells what a study needs"
    return graded("disk", name, free >= DISK_BYTES, f"{format_size(free)} in {path}", remedy, Grade.WARNING)


def limits() -> tuple[CheckResult, ...]:
    files = _open_files_limit()
    tasks = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return (
        _limit(
            "files may be open", files, OPEN_FILES, "`ulimit -Hn 65536` as root, or `nofile` in limits.conf"
        ),
        _limit("tasks may run", tasks, TASKS, "`ulimit -Hu 4096` as root, or `nproc` in limits.conf"),
    )


def require_room(needs: Needs) -> None:
    """Raises the first of `lacking`."""
    for error in lacking(needs):
        raise error


def lacking(needs: Needs) -> Iterator[MeshwiseError]:
    """MW215 where all would not fit into memory. MW216
    where one process may not have the connections of a whole round."""
    available = available_bytes()
    if needs.memory_bytes > available:
        yield messages.TOO_LITTLE_MEMORY_FOR_ARMS.error(
            environments=plural(needs.environments, "environment"),
            sidecars=plural(needs.sidecars, "sidecar"),
            needed=format_size(needs.memory_bytes),
            available=format_size(available),
        )
    limit = _open_files_limit()
    if limit != resource.RLIM_INFINITY and needs.open_files > limit:
        yield messages.TOO_FEW_FILES_FOR_ARMS.error(
            connections=needs.connections,
            needed=needs.open_files,
            limit=limit,
            wanted=2 ** needs.open_files.bit_length(),
        )


def _open_files_limit() -> int:
    """The hard limit of one process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def _limit(what: str, limit: int, needed: int, remedy: str) -> CheckResult:
    unlimited = limit == resource.RLIM_INFINITY
    detail = "unlimited" if unlimited else f"{limit}"
    return graded("limits", f"at least {needed} {what}", unlimited or limit >= needed, detail, remedy)


# --- programs --------------------------------------------------------------------------------------


def envoy() -> CheckResult:
    """Whether the Envoy that a study would use runs and says that it is one."""
    try:
        path = envoy_binary.envoy_path()
        found = envoy_binary.facts(path)
    except MeshwiseError as error:
        return CheckResult("proxies", "Envoy runs", Grade.FAILED, error.what, error.remedy)
    detail = f"{found['version']} {found['build']} {found['tls_library']} ({path})"
    return CheckResult("proxies", "Envoy runs", Grade.OK, detail)


def linkerd() -> CheckResult:
    """Optional: only studies with the mesh linkerd need it."""
    try:
        path = linkerd_binary.proxy_path()
        found = linkerd_binary.facts(path)
    except MeshwiseError as error:
        detail = f"{error.what} (only the mesh linkerd needs it)"
        return CheckResult("proxies", "linkerd2-proxy runs", Grade.WARNING, detail, error.remedy)
    return CheckResult("proxies", "linkerd2-proxy runs", Grade.OK, f"{found['version']} ({path})")


def istiod() -> CheckResult:
    """Optional: only what asks the real istiod needs it."""
    name = "istiod runs"
    try:
        path = istiod_binary.istiod_path()
        found = istiod_binary.facts(path)
    except MeshwiseError as error:
        detail = f"{error.what} (only `control_plane: istiod` and `meshwise mesh diff` need it)"
        return CheckResult("proxies", name, Grade.WARNING, detail, error.remedy)
    return CheckResult("proxies", name, Grade.OK, f"{found['version']} {found['revision'][:12]} ({path})")


def counting() -> tuple[CheckResult, ...]:
    """What can count instructions: optional, a study times without. valgrind is tried on this Python."""
    reason = perf_events.missing()
    pmu = graded(
        "counting", "the kernel counts instructions (performance counter)", not reason,
        reason or "in every timed trial, of every proxy",
        "use a machine whose guests may read it (if it is only forbidden, `sysctl -w "
        "kernel.perf_event_paranoid=2` as root); valgrind counts without it", Grade.WARNING,
    )  # fmt: skip
    return (_valgrind(), pmu)


def _valgrind() -> CheckResult:
    name = "valgrind counts instructions and system calls (with a C compiler)"
    try:
        with (
            tempfile.TemporaryDirectory() as scratch,
            CallgrindCounter(Path(scratch), USUAL, os.environ) as counter,
        ):
            told = counter.describe()
    except MeshwiseError as error:
        return CheckResult("counting", name, Grade.WARNING, error.what, error.remedy)
    return CheckResult("counting", name, Grade.OK, f"{told['version']}; {told['cpu']}")


def profilers() -> tuple[CheckResult, ...]:
    """Optional: only `profile: true` of a study needs them."""
    perf, spy = why_no_perf(), why_no_pyspy()
    return (
        graded(
            "profiling", "perf looks at processes", not perf, perf or "with call graphs",
            "install it (Debian: linux-perf); as root `sysctl -w kernel.perf_event_paranoid=2`",
            Grade.WARNING,
        ),
        graded(
            "profiling", "py-spy looks at Python programs", not spy, spy or "services and instrument",
            "pip install 'meshwise[profile]'", Grade.WARNING,
        ),
    )  # fmt: skip


def prometheus() -> CheckResult:
    """Optional: nothing of a study needs it; its own tests do, and whoever wants the numbers in it."""
    name = "promtool makes a Prometheus's blocks of an export"
    path = shutil.which("promtool")
    if path is None:
        detail = "there is none here (only `meshwise export --format openmetrics` has a use for it)"
        return CheckResult("series", name, Grade.WARNING, detail, "apt-get install prometheus")
    try:
        told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_PROMTOOL_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return CheckResult("series", name, Grade.WARNING, f"{path}: {error}", "apt-get install prometheus")
    said = (told.stdout or told.stderr).strip().splitlines()
    version = said[0].partition(" (")[0] if said else f"exit status {told.returncode}"
    return graded(
        "series",
        name,
        told.returncode == 0,
        f"{version} ({path})",
        "apt-get install prometheus",
        Grade.WARNING,
    )


def python() -> tuple[CheckResult, ...]:
    version = sys.version.split()[0]
    return (
        graded("python", "Python 3.11 or newer", sys.version_info >= (3, 11), version, "install Python 3.11"),
    )
