"""Program that tests of the local testbed run, as root and as ordinary user: `inside_world.py SCENE [WORDS]`.

A scene is a function that runs in a world of its own and prints one line of JSON. It is a program and not a
function of the test, because pytest has threads and open files that a fork should not inherit.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from meshwise.core import linux, messages
from meshwise.core.errors import MeshwiseError
from meshwise.load.dealt import Dealt
from meshwise.load.launch import running_load
from meshwise.mesh.files import private_directory, write_private
from meshwise.mesh.seam import Capture
from meshwise.testbed.local import links
from meshwise.testbed.local.kernel_probe import original_destination
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.world import current_world, enter_world
from tests.support.loads import load_spec

ISTIO = Capture(
    inbound_port=15006,
    outbound_port=15001,
    proxy_uid=1337,
    inbound_exempt_ports=(15008, 15020, 15021, 15090),
    proxy_gid=1337,
    inbound_source="127.0.0.6",
    tunnel_port=15008,
)
LINKERD = Capture(4143, 4140, 2102, (4190, 4191, 4567, 4568), outbound_exempt_ports=(4567, 4568))


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def look(directory: str) -> int:
    """What a runner sees, and a file written where the user said."""
    world = current_world()
    (world.secrets / "key").write_text("secret")
    Path(directory, "output").write_text("kept")
    say(
        pids=sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()),
        uid=os.getuid(),
        privileged=world.privileged,
        secrets=str(world.secrets),
        links=[name for _, name in socket.if_nameindex()],
    )
    return 7


def refuse() -> int:
    raise messages.CANNOT_START.error(name="thing", reason="no reason")


def crash() -> int:
    raise ZeroDivisionError("on purpose")


def die(number: str) -> int:
    """The runner by itself, as by a crash."""
    os.kill(os.getpid(), int(number))
    time.sleep(10)
    return 0


def without_threads() -> int:
    """As where pids.max is reached."""
    raise RuntimeError("can't start new thread")


def count_signals() -> int:
    """Counts SIGINT until half a second passes without one."""
    seen: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: seen.append(number))
    say(ready=True)
    quiet_since = time.monotonic()
    while not seen or time.monotonic() - quiet_since < 0.5:
        before = len(seen)
        time.sleep(0.02)
        if len(seen) != before:
            quiet_since = time.monotonic()
    say(count=len(seen))
    return 0


def hold() -> int:
    """Pods, rules, a key, processes in pods, and one that tries to get away; then waits to be killed."""
    (current_world().secrets / "key").write_text("secret")
    log = current_world().secrets / "log"
    runaway = ("/bin/sh", "-c", "(trap '' HUP TERM INT; sleep 300 & sleep 300) & sleep 300")
    with links.network([(f"pod-{i}", f"10.244.1.{i + 1}") for i in range(3)]) as pods:
        environment = dict(os.environ)
        for pod in pods.values():
            links.capture(pod, ISTIO, privileged=current_world().privileged)
            pod.start("sleeper", ("/bin/sleep", "300"), environment, log)
            pod.start("runaway", runaway, environment, log)
        say(ready=True)
        signal.pause()
    return 0


def keep_keys() -> int:
    """A process with each mesh's uid, and a key that only this uid may read; then waits to be killed."""
    world = current_world()
    with links.network([("pod", "10.244.1.1")]) as pods:
        started = []
        for uid in (ISTIO.proxy_uid, LINKERD.proxy_uid):
            directory = private_directory(world.secrets / str(uid), uid)
            write_private(directory / "key", "secret", uid)
            script = f"cat {directory}/key; exec sleep 300"
            log = world.secrets / f"log-{uid}"
            process = pods["pod"].start("proxy", ("/bin/sh", "-c", script), dict(os.environ), log, uid=uid)
            process.wait_until(lambda log=log: log.read_text() == "secret", "having read its key", 10)
            started.append(process)
        owners = [Path(f"/proc/{process.pid}").stat().st_uid for process in started]
        say(own_users=world.own_users, secrets=str(world.secrets), uids=owners)
        signal.pause()
    return 0


def crash_hard(directory: str) -> int:
    """The runner's child and a process in a pod end as by a defect, in a directory that may be written."""
    os.chdir(directory)
    child = os.fork()
    if child == 0:
        os.abort()
    endings = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
    with links.network([("pod", "10.244.1.1")]) as pods:
        script = ("/bin/sh", "-c", "kill -ABRT $$")
        process = pods["pod"].start("proxy", script, dict(os.environ), current_world().secrets / "log")
        process.wait(10)
    say(endings=endings, pod=process.ending)
    return 0


def capture(mesh: str) -> int:
    """Who ends where, and with which original destination."""
    rules = {"istio": ISTIO, "linkerd": LINKERD}[mesh]
    privileged = current_world().privileged
    with links.network([("left", "10.244.1.1"), ("right", "10.244.1.2")]) as pods:
        left, right = pods["left"], pods["right"]
        for pod in (left, right):
            links.capture(pod, rules, privileged=privileged)
        exempt = rules.inbound_exempt_ports[-1]
        listeners = {
            "left outbound": listen(left, rules.outbound_port),
            "left inbound": listen(left, rules.inbound_port),
            "right inbound": listen(right, rules.inbound_port),
            "right exempt": listen(right, exempt),
            "right application": listen(right, 8080),
        }

        def arrival() -> list[object]:
            """The only listener that has a connection, and where that was meant to go."""
            found: list[object] = []
            for name, listener in listeners.items():
                listener.settimeout(0.05)
                try:
                    accepted, peer = listener.accept()
                except TimeoutError:
                    continue
                with accepted:
                    found += [name, peer[0], *original(accepted)]
            return found

        def go(dial: Callable[[], socket.socket]) -> list[object]:
            with dial():
                return arrival()

        say(
            privileged=privileged,
            application_to_service=go(lambda: left.dial("10.96.1.9", 8080)),
            application_to_pod=go(lambda: left.dial(right.ip, 8080)),
            application_to_exempt=go(lambda: proxy_dial(left, rules, right.ip, exempt)),
            proxy_to_pod=go(lambda: proxy_dial(left, rules, right.ip, 8080)),
            sidecar_to_application=go(
                lambda: dial_from("127.0.0.6" if mesh == "istio" else "127.0.0.1", right)
            ),
        )
    return 0


def original(accepted: socket.socket) -> tuple[str, int]:
    try:
        return original_destination(accepted)
    except FileNotFoundError:  # no connection tracking entry: nothing was translated in this namespace
        return accepted.getsockname()


def listen(pod: Pod, port: int) -> socket.socket:
    return linux.in_network(pod.network_fd, lambda: socket.create_server(("0.0.0.0", port)))


def dial_from(source: str, pod: Pod) -> socket.socket:
    connection = pod.open_socket()
    connection.bind((source, 0))
    connection.settimeout(2.0)
    connection.connect((pod.ip, 8080))
    return connection


class proxy_dial:
    """A connection made by a process that runs as the proxy's uid (in a one-uid world: as the only one)."""

    def __init__(self, pod: Pod, rules: Capture, address: str, port: int) -> None:
        script = f"exec 3<>/dev/tcp/{address}/{port}; sleep 5"
        uid = rules.proxy_uid if current_world().privileged else None
        log = current_world().secrets / "log"
        self.process = pod.start("proxy", ("/bin/bash", "-c", script), dict(os.environ), log, uid=uid)

    def __enter__(self) -> None:
        """Accepting waits only a moment, so wait until the connection stands."""
        table = Path(f"/proc/{self.process.pid}/net/tcp")
        self.process.wait_until(lambda: " 01 " in table.read_text(), "connected", 3.0)

    def __exit__(self, *exc: object) -> None:
        self.process.stop()


def deal() -> int:
    """One stream to servers at the same address of two pods and of the world itself: who answered what. Each
    server answers with a status of its own and closes a connection after three answers."""
    with links.network([("left", "10.244.1.1"), ("right", "10.244.1.2")]) as pods:
        places = {"left": pods["left"], "right": pods["right"], "world": None}
        for status, pod in enumerate(places.values(), start=201):
            listener = listen(pod, 8080) if pod else socket.create_server(("0.0.0.0", 8080))
            threading.Thread(target=serve, args=(listener, status), daemon=True).start()
        spec = load_spec(8080, rate_rps=100.0, timeout_ns=5 * 10**9)
        paths = [f"/proc/self/fd/{pod.network_fd}" if pod else "" for pod in places.values()]
        for changes in ({}, {"requests_per_connection": 1}, {"churn_per_s": 20.0}):
            dealt = Dealt(tuple(replace(spec, network=path, **changes) for path in paths), 1)  # type: ignore[arg-type]
            with running_load(dealt) as running:
                running.process.wait(30)
                reports = running.reports()
            say(
                statuses=[report.statuses for report in reports],
                errors=[report.errors for report in reports],
                made=[report.connections_made for report in reports],
            )
        try:
            with running_load(replace(spec, network="/proc/self/ns/none")):
                pass
        except MeshwiseError as error:
            say(error=error.code, where=error.where)
    return 0


def serve(listener: socket.socket, status: int) -> None:
    def answer(sock: socket.socket) -> None:
        with sock:
            for last in (False, False, True):
                if not sock.recv(4096):
                    return
                close = "connection: close\r\n" * last
                sock.sendall(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n{close}\r\n".encode())

    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


SCENES = {
    scene.__name__: scene
    for scene in (
        look,
        refuse,
        crash,
        die,
        without_threads,
        count_signals,
        hold,
        keep_keys,
        crash_hard,
        capture,
        deal,
    )
}


def main() -> int:
    scene, *words = sys.argv[1:]
    try:
        return enter_world(lambda: SCENES[scene](*words), keep=map(Path, words))
    except MeshwiseError as error:
        say(error=error.code, what=error.what)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
