"""Placing a study: who exists, with which address, and who calls whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.studies import cell, study, trial

from meshwise.mesh.expectations import Who
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.request import request_of
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Control,
    ForbiddenBy,
    MeshName,
    Protocol,
    Topology,
    TopologyKind,
)
from meshwise.testbed.applications.echo import node_spec
from meshwise.testbed.layout import lay_out, merged
from meshwise.testbed.local.instrument import load_spec, outside_spec, stranger_spec
from meshwise.testbed.local.processes import assign_cpus

HOME = Path("/home")
STRICT = LADDER[2]


def test_one_environment_per_mesh_and_one_for_the_twin() -> None:
    twin = cell(STRICT)
    found = lay_out(study([cell(), twin, cell(STRICT, length=3)], control=Control(twin=(twin,))), HOME)
    assert [environment.name for environment in found] == ["none/a", "istio/a", "istio/b"]
    assert [len(environment.nodes) for environment in found] == [1, 3, 1]
    assert found[1].placement.directory == HOME / "istio" / "a"


def test_addresses_are_unique_and_tell_the_environment() -> None:
    found = lay_out(study([cell(), cell(STRICT, length=3)]), HOME)
    addresses = [ip for environment in found for _, ip in environment.pods()]
    assert len(set(addresses)) == len(addresses) == 3 + 5
    assert addresses[:3] == ["10.244.1.10", "10.244.1.11", "10.244.1.250"]
    assert found[1].placement["node-1"].service_ip == "10.96.2.11"


def test_without_a_mesh_pods_are_dialled_with_one_services() -> None:
    none, istio = lay_out(study([cell(length=2), cell(STRICT, length=2)]), HOME)
    assert none.address("node-1") == none.placement["node-1"].pod_ip
    assert istio.address("node-1") == istio.placement["node-1"].service_ip
    following = node_spec(istio, "node-1").next
    assert following is not None
    assert (following.address, following.host) == (
        istio.address("node-2"),
        "node-2.backend.svc.cluster.local",
    )
    assert node_spec(istio, "node-2").next is None


@given(st.integers(1, 5), st.integers(1, 5))
def test_chain_and_fanout_share_their_first_node(chain: int, leaves: int) -> None:
    workloads = merged([cell(length=chain), cell(shape=TopologyKind.FANOUT, length=leaves)])
    names = [workload.name for workload in workloads]
    assert names[0] == "client"
    assert len(set(names)) == len(names) == 1 + chain + leaves
    for shape, length in ((TopologyKind.CHAIN, chain), (TopologyKind.FANOUT, leaves)):
        for workload in Topology(shape, length).workloads:
            assert set(workload.calls) <= set(workloads[names.index(workload.name)].calls)


def test_a_part_has_only_what_a_smaller_topology_uses() -> None:
    [environment] = lay_out(study([cell(STRICT, length=3)]), HOME)
    part = environment.part(Topology(TopologyKind.CHAIN, 1))
    assert part.pod_names() == {"istio/a/client", "istio/a/node-1", "istio/a/outsider"}


def test_the_load_of_a_cell() -> None:
    one = cell(STRICT, Protocol.HTTP2)
    question = study([one])
    [environment] = lay_out(question, HOME)
    spec = load_spec(question, trial(0, one), environment, request_of(one), cpu=None)
    assert (spec.address, spec.port) == ("10.96.1.11", 8081)
    assert spec.authority == "node-1.backend.svc.cluster.local:8081"
    assert (spec.rate_rps, spec.connections, spec.streams, spec.body_bytes) == (300.0, 4, 4, 64)
    assert dict(spec.headers)["x-plan"] == "bytes=512;hops=0;fan=0;work_us=0"


def test_trials_of_a_block_meet_the_same_arrivals() -> None:
    cells = [cell(), cell(STRICT)]
    question = study(cells)
    seeds = {
        load_spec(question, trial(number, one), environment, request_of(one), None).seed
        for number, (one, environment) in enumerate(zip(cells, lay_out(question, HOME), strict=True))
    }
    assert len(seeds) == 1


def test_each_step_of_a_search_meets_its_own_arrivals() -> None:
    one = cell()
    question = study([one])
    [environment] = lay_out(question, HOME)
    steps = [replace(trial(0, one), search="b000-p00", step=number) for number in range(3)]
    assert len({load_spec(question, step, environment, request_of(one), None).seed for step in steps}) == 3


def test_a_share_of_plaintext_is_taken_from_the_mesh_client() -> None:
    one = cell(LADDER[1], plaintext_share=0.25)
    question = study([one])
    [environment] = lay_out(question, HOME)
    inside = load_spec(question, trial(0, one), environment, request_of(one), None)
    outside = outside_spec(inside, trial(0, one), environment)
    assert inside.rate_rps + outside.rate_rps == one.rate_rps
    assert (outside.rate_rps, outside.connections) == (75.0, 1)
    assert outside.address == environment.placement["node-1"].pod_ip


def test_a_client_of_another_namespace_calls_the_entry_with_its_own_certificate() -> None:
    one = cell(LADDER[2], connections=8, forbidden_share=0.25, forbidden_by=ForbiddenBy.IDENTITY)
    question = study([one])
    [environment] = lay_out(question, HOME)
    inside = load_spec(question, trial(0, one), environment, request_of(one), None)
    entrance = IstioMesh().model.entrance(environment.placement, one, Who.OTHER_NAMESPACE)
    stranger = stranger_spec(inside, trial(0, one), entrance)
    assert inside.rate_rps == 3 * stranger.rate_rps == 0.75 * one.rate_rps
    assert (inside.other, stranger.other, stranger.connections) == (None, None, 2)
    assert (stranger.address, stranger.port) == (environment.placement["node-1"].pod_ip, 8080)
    assert stranger.tls is not None
    assert str(stranger.tls.cert_file).endswith("outsiders/other_namespace.chain.pem")
    assert stranger.tls.alpn == ("istio-http/1.1", "istio", "http/1.1")
    assert stranger.headers == inside.headers


def test_the_share_for_another_tenant_is_of_the_client_inside_the_mesh() -> None:
    """A quarter of all requests is a third of its own, where another quarter comes in plaintext."""
    one = cell(LADDER[1], plaintext_share=0.25, forbidden_share=0.25)
    question = study([one])
    [environment] = lay_out(question, HOME)
    inside = load_spec(question, trial(0, one), environment, request_of(one), None)
    assert inside.other_share == pytest.approx(1 / 3)
    assert dict(inside.headers)["x-tenant"] == "blue"
    assert dict(inside.other_headers) == {**dict(inside.headers), "x-tenant": "green"}
    assert outside_spec(inside, trial(0, one), environment).other is None


def test_pinning_gives_the_instrument_a_cpu_of_its_own() -> None:
    assert assign_cpus({3, 1, 2}, pin=True).instrument == (1,)
    assert assign_cpus({3, 1, 2}, pin=True).others == (2, 3)
    assert assign_cpus({0}, pin=True) == assign_cpus({0, 1}, pin=False)


def test_no_mesh_cell_is_placed_without_a_mesh() -> None:
    [environment] = lay_out(study([cell(NO_MESH)]), HOME)
    assert environment.placement.mesh is MeshName.NONE
