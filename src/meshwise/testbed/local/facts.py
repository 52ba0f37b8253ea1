"""What `environment.json` says of a local testbed: its machine, its meshes, how it differs from real ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from meshwise import __version__
from meshwise.mesh.seam import Fidelity, LocalMesh
from meshwise.study.model import MeshName
from meshwise.testbed.local import host

FIDELITY = (
    Fidelity(
        "local-one-machine",
        "client, sidecars and services share this machine's CPUs and its loopback of virtual links",
        "latencies include competition for the CPU and no network distance; CPU per request is unaffected",
    ),
)

COUNTED_FIDELITY = (
    Fidelity(
        "counted-processor",
        "counted sidecars see the processor that valgrind presents: AES-NI and AVX2, but neither VAES, ADX,"
        " SHA-NI nor AVX-512",
        "counts of encryption are those of a processor of 2013, on every machine; new ones take fewer",
    ),
    Fidelity(
        "counted-threads",
        "a counted sidecar has one worker, its threads take turns, and so do the sidecars of one life",
        "what several workers do at once for one another is not in a count; a sidecar finds all that the one"
        " before it has written, never a part of it",
    ),
    Fidelity(
        "counted-clock",
        "a counted Envoy flushes its statistics when it is asked for them and not every 5 s, and its"
        " allocator has no per-CPU caches (rseq); that of a counted Linkerd gives nothing back by the clock,"
        " and what it keeps for idle seconds it keeps for an hour",
        "an allocation costs other instructions than in production; what is done by the clock is left out",
    ),
)
"""Of counting trials; their counts are of user space, and the kernel's part is the number of system calls."""


TRACED_FIDELITY = (
    Fidelity(
        "traced-sampling",
        "which requests are traced is decided by the load generator, as a gateway decides it: they come with"
        " a `traceparent` and a request id that say so, the others without. Istio's sidecars begin no trace"
        " themselves (randomSamplingPercentage 0); Linkerd's never do",
        "none per traced request; a mesh whose sidecars decide draws a number for every request besides",
    ),
    Fidelity(
        "traced-untraced-requests",
        "a request that is not traced reaches a service without a context under Linkerd; Istio's sidecar"
        " gives it one that says it is not sampled",
        "Istio's sidecars write and read 70 bytes more for every request as soon as anything is traced",
    ),
    Fidelity(
        "traced-collector",
        "exporters send by OTLP over gRPC, in plaintext, to a receiver on their pod's loopback; on a cluster"
        " it is a service, behind the network and often behind the mesh's own TLS",
        "less per batch of spans than to a service in the mesh; the receiver's CPU is in no pod's figure",
    ),
    Fidelity(
        "traced-linkerd-process",
        "linkerd2-proxy has its exporter or has it not for the life of the process: where traced and untraced"
        " cells share proxies (trials apart), the untraced ones have it too, with nothing to send",
        "none in rounds, where every arm has proxies of its own; apart, level 0 has a look at each request's"
        " headers more",
    ),
    Fidelity(
        "traced-linkerd-end",
        "a span of linkerd2-proxy ends with the head of the answer, one of Envoy with its last byte",
        "of large answers Linkerd's spans leave out the body; what is left counts as the part around them",
    ),
)
"""Of studies in which something is traced."""


def of_meshes(
    meshes: Mapping[MeshName, LocalMesh], *, privileged: bool, counting: bool, traced: bool = False
) -> Mapping[str, object]:
    own = (*FIDELITY, *(COUNTED_FIDELITY if counting else ()), *(TRACED_FIDELITY if traced else ()))
    fidelity: list[dict[str, str]] = [asdict(item) for item in own]
    for name, mesh in meshes.items():
        fidelity += [{**asdict(item), "mesh": str(name)} for item in mesh.fidelity(privileged=privileged)]
    return {
        "testbed": "local",
        "meshwise": __version__,
        "machine": host.facts(),
        "proxies": {str(name): dict(mesh.describe()) for name, mesh in meshes.items()},
        "traits": {
            str(name): found
            for name, mesh in meshes.items()
            if (found := dict(mesh.model.traits(mesh.describe())))
        },
        "fidelity": fidelity,
    }
