"""The conformance suite of the seams `MeshModel` and `LocalMesh`: what a testbed may rely on, whichever mesh.

Subclass it in a test module and say how to make the mesh, and which cell it can express:

    class TestMine(MeshConformance):
        mesh = MyMesh
        cell = replace(CELL, mesh=MeshName.MINE, posture=...)

Nothing here starts a process of a mesh; postures on running proxies are proven end to end.
"""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import yaml

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.changes import NOT_DONE
from meshwise.mesh.expectations import Expectation, Meaning, What, Who
from meshwise.mesh.request import request_of
from meshwise.mesh.seam import OUTSIDER, Delivered, LocalMesh, PlacedWorkload, Placement
from meshwise.mesh.traits import NAMES
from meshwise.study.graph.model import GraphService
from meshwise.study.model import LADDER, NO_MESH, Cell, MtlsMode, Protocol, Topology, TopologyKind
from meshwise.study.timeline import (
    Act,
    ChangePosture,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
    Skew,
)
from meshwise.telemetry.seam import Moment
from meshwise.telemetry.source import Source
from meshwise.testbed.fake_reach import FakeReach
from tests.support.mesh_graph import SHOP
from tests.support.mesh_graph import TOPOLOGY as SHOP_TOPOLOGY

CHAIN = Topology(TopologyKind.CHAIN, 2)
ACTS: tuple[Act, ...] = (
    *(Rotate(what) for what in Rotated),
    Rotate(Rotated.ANCHOR, overlap=False),
    PushPolicies(3),
    PushPolicies(3, relevant=True),
    *(ChangePosture(posture) for posture in LADDER),
    *(Restart(what, drain) for what in Restarted for drain in (False, True)),
    *(Fail(what, 10**9, how) for what in Failing for how in RenewalFault),
    Skew(10**9, 10**9),
    Skew(-(10**9), 10**9),
)
"""Every kind of event."""


class MeshConformance:
    mesh: ClassVar[Callable[[], LocalMesh]]
    cell: ClassVar[Cell]

    def placement(self, directory: Path, topology: Topology = CHAIN) -> Placement:
        placed = tuple(
            PlacedWorkload(workload, f"10.244.1.{index}", f"10.96.1.{index}")
            for index, workload in enumerate(topology.workloads, 1)
        )
        directory = directory / "placement"
        directory.mkdir(mode=0o700)
        return Placement(type(self).mesh().model.name, "a", placed, "10.244.1.99", directory)

    def test_its_name_is_the_cells(self) -> None:
        assert type(self).mesh().model.name is self.cell.mesh

    def test_making_one_is_cheap_and_says_what_cannot_be(self) -> None:
        mesh = type(self).mesh().model
        assert mesh.not_applicable(self.cell) is None
        foreign = LADDER[0] if self.cell.posture == NO_MESH else NO_MESH
        assert mesh.not_applicable(replace(self.cell, posture=foreign))

    def test_resources_are_yaml_and_the_same_each_time(self) -> None:
        model = type(self).mesh().model
        text = model.resources(self.cell, "cluster.local")
        assert text == model.resources(self.cell, "cluster.local")
        for document in yaml.safe_load_all(text):
            assert document is None or {"apiVersion", "kind", "metadata"} <= set(document)

    def test_the_request_is_everybodys(self) -> None:
        for protocol in Protocol:
            cell = replace(self.cell, protocol=protocol)
            assert type(self).mesh().model.request(cell) == request_of(cell)

    def test_processes_belong_to_pods_of_the_placement(self, tmp_path: Path) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        plans = mesh.processes(placement, workers=1)
        assert {plan.pod for plan in plans} <= {placed.name for placed in placement.workloads}
        assert len({(plan.pod, plan.role) for plan in plans}) == len(plans)
        assert all(Path(plan.argv[0]).is_absolute() for plan in plans)
        proxied = {plan.pod for plan in plans if plan.role == "proxy"}
        assert proxied == {placed.name for placed in placement.workloads if mesh.capture(placed.name)}

    def test_prepared_files_stay_in_the_directory_and_are_private(self, tmp_path: Path) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        mesh.prepare(placement, self.cell)
        assert [path.name for path in tmp_path.iterdir()] == ["placement"]
        for path in placement.directory.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    def test_a_graph_with_demands_and_a_store_is_expressed(self, tmp_path: Path) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path, SHOP_TOPOLOGY)
        cell = replace(self.cell, shape=TopologyKind.GRAPH, length=1, graph=SHOP)
        assert mesh.model.not_applicable(cell) is None
        mesh.prepare(placement, cell)
        plain = replace(cell, graph=replace(SHOP, services=tuple(map(undemanding, SHOP.services))))
        one, other = (mesh.model.resources(each, "cluster.local") for each in (cell, plain))
        differs = one != other
        assert differs == bool(mesh.capture("front")), "whatever has a sidecar honours demands"
        plans = mesh.processes(placement, workers=1)
        proxied = {plan.pod for plan in plans if plan.role == "proxy"}
        assert proxied == {placed.name for placed in placement.workloads if mesh.capture(placed.name)}

    def test_the_entrance_is_the_entrys_own_pod_and_has_no_tls_where_the_posture_has_none(
        self, tmp_path: Path
    ) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        entry = self.cell.topology.entry
        for protocol in Protocol:
            cell = replace(self.cell, protocol=protocol)
            found = mesh.model.entrance(placement, cell)
            assert (found.pod, found.address) == (OUTSIDER, placement[entry.name].pod_ip)
            assert found.request.protocol is protocol
            if cell.posture.mtls not in (MtlsMode.PERMISSIVE, MtlsMode.STRICT):
                assert found.tls is None
            stranger = mesh.model.entrance(placement, cell, Who.OTHER_NAMESPACE)
            if found.tls is not None:
                assert stranger.tls is not None
                assert stranger.tls.identity is not None
                assert stranger.tls.identity.chain.name == "other_namespace.chain.pem"
                stranger = replace(stranger, tls=replace(stranger.tls, identity=found.tls.identity))
            assert stranger == found, "whoever calls, it is called in the same way"

    def test_differences_are_named_once_and_explained(self) -> None:
        for privileged in (True, False):
            differences = type(self).mesh().fidelity(privileged=privileged)
            assert len({each.code for each in differences}) == len(differences)
            assert all(each.what and each.effect for each in differences)

    def test_traits_are_words_of_the_vocabulary(self) -> None:
        mesh = type(self).mesh()
        found = mesh.model.traits(mesh.describe())
        assert set(found) <= set(NAMES)
        assert bool(found) == bool(mesh.capture("node-1")), "whatever has a sidecar has traits"
        assert all(found.values())

    def test_every_workload_has_expectations_and_the_allowed_call_is_one(self) -> None:
        model = type(self).mesh().model
        for callee in self.cell.topology.workloads[1:]:
            rows = model.expectations(self.cell, callee.name)
            assert len({row.name for row in rows}) == len(rows)
            assert Expectation(Who.MESH, What.ALLOWED, Meaning.ANSWERED) in rows

    def test_a_model_opens_no_file_and_starts_no_process(self) -> None:
        """Code that only computes a posture (a plan, a cluster) needs no proxy here."""
        module = sys.modules[type(type(self).mesh().model).__module__]
        named = {name.partition(".")[0] for name in vars(module)}
        assert not named & {"subprocess", "socket", "os", "Path", "binary", "open"}

    def test_where_nobody_answers_no_posture_is_proven(self, tmp_path: Path) -> None:
        """A proof that fails, or the error that names a silent proxy; never one that passes."""
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        mesh.prepare(placement, self.cell)
        try:
            proof = mesh.model.judge(placement, self.cell, FakeReach(), Delivered(workers=1))
        except MeshwiseError as error:
            told = error
        else:
            assert not proof.passed
            return
        assert told.code == messages.ADMIN_SILENT.code
        assert any(placed.name in str(told) for placed in placement.workloads)

    def test_its_state_is_told_by_proxies_that_do_not_answer_too(self, tmp_path: Path) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        found = mesh.state(placement, self.cell, FakeReach())
        used = {placed.name for placed in placement.of(self.cell.topology) if mesh.capture(placed.name)}
        assert {name.partition(".")[0] for name in found} == used
        assert all("MW406" in text for text in found.values())

    def test_each_sampler_reads_one_sidecar_and_bears_its_silence(self, tmp_path: Path) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        samplers = mesh.samplers(placement, FakeReach())
        assert len({sampler.name for sampler in samplers}) == len(samplers)
        sidecars = [placed.name for placed in placement.workloads if mesh.capture(placed.name)]
        assert len(samplers) == len(sidecars)
        for sampler, pod in zip(samplers, sidecars, strict=True):
            for moment in Moment:
                for sample in sampler.sample(moment):
                    source = Source.read(sample.source)
                    assert source is not None
                    assert (source.environment, source.workload) == (mesh.model.name, pod)
                    assert (sample.metric, sample.value) == ("reachable", 0.0)

    def test_every_event_can_happen_or_it_is_said_why_not(self) -> None:
        mesh = type(self).mesh()
        sidecars = bool(mesh.capture("node-1"))
        for act in ACTS:
            why = mesh.cannot(self.cell, act)
            assert why is None or why.strip(), act
            of_a_service = isinstance(act, Restart) and act.what is Restarted.SERVICE
            assert why or sidecars or of_a_service, "without a sidecar there is nothing to change"
        assert mesh.cannot(self.cell, Restart(Restarted.SERVICE)) is None, "services are of no mesh"
        assert mesh.cannot(self.cell, ChangePosture(NO_MESH)), "a mesh is not left within a trial"

    def test_a_change_is_told_of_each_workload_or_the_silent_proxy_is_named(self, tmp_path: Path) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        mesh.prepare(placement, self.cell)
        used = {placed.name for placed in placement.of(self.cell.topology)}
        changes = [act for act in ACTS if isinstance(act, Rotate | PushPolicies | ChangePosture)]
        mesh.foresee(placement, self.cell, [act for act in changes if not mesh.cannot(self.cell, act)])
        for act in ACTS:
            if not isinstance(act, Rotate | PushPolicies | ChangePosture) or mesh.cannot(self.cell, act):
                continue
            try:
                taken = mesh.carry_out(placement, self.cell, act, FakeReach(), restart=lambda workload: None)
            except MeshwiseError as error:
                if error.code in (messages.ADMIN_SILENT.code, messages.CONTROLLER_SILENT.code):
                    continue
                raise
            assert {each.workload for each in taken} == used, act
            for each in taken:
                assert each.done_ns is not None or each.detail[NOT_DONE], act
                json.dumps(dict(each.detail))

    def test_what_fails_for_a_while_is_over_when_it_is_left_and_may_come_again(self, tmp_path: Path) -> None:
        mesh, placement = type(self).mesh(), self.placement(tmp_path)
        mesh.prepare(placement, self.cell)
        for act in ACTS:
            if not isinstance(act, Fail | Skew) or mesh.cannot(self.cell, act):
                continue
            if isinstance(act, Fail) and act.what is Failing.CONTROLLER:
                continue  # the testbed's
            for _ in range(2):
                try:
                    with mesh.failing(placement, act):
                        pass
                except MeshwiseError as error:
                    if error.code != messages.CONTROLLER_SILENT.code:
                        raise

    def test_describe_is_text(self) -> None:
        facts = type(self).mesh().describe()
        assert facts["proxy"]
        assert all(isinstance(value, str) for value in facts.values())


def undemanding(service: GraphService) -> GraphService:
    return replace(service, mtls=None, authorization=None)
