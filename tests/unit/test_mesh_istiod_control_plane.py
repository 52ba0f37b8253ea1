"""What istiod is asked, and what is kept: with what asks it replaced, so that no istiod is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.mesh_samples import CELL, view

from meshwise.mesh.istio import posture
from meshwise.mesh.istio.istiod import control_plane
from meshwise.mesh.istio.istiod.compare import ISTIO_PROXY
from meshwise.mesh.istio.istiod.control_plane import IstiodControlPlane
from meshwise.mesh.istio.istiod.generated import Generated
from meshwise.mesh.istio.istiod.store import ObjectPlace, ObjectStore
from meshwise.mesh.istio.view import Options, Service
from meshwise.mesh.tokens import tokens
from meshwise.study.model import LADDER

STRICT, FINE = (
    posture.resources(replace(CELL, posture=rung), tokens().jwks) for rung in (LADDER[2], LADDER[4])
)


class Process:
    running = True


@dataclass
class Started:
    objects: ObjectStore
    process: Process


@dataclass
class Seen:
    started: list[Started]
    generated: list[int]
    ended: int = 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen([], [])

    @contextmanager
    def running(*_: object) -> Iterator[Started]:
        found.started.append(Started(ObjectStore(), Process()))
        yield found.started[-1]
        found.ended += 1

    def generate(
        istiod: Started, services: Sequence[Service], resources: object, domain: str, number: int
    ) -> Mapping[str, Generated]:
        found.generated.append(number)
        return {service.name: Generated({}, {}, {}, {}) for service in services}

    monkeypatch.setattr(control_plane, "running", running)
    monkeypatch.setattr(control_plane, "generate", generate)
    return found


def policies(istiod: Started) -> list[Any]:
    found, _ = istiod.objects.list(ObjectPlace("security.istio.io/v1", "authorizationpolicies"))
    return found


def test_a_posture_that_comes_again_is_not_waited_for_but_istiod_is_told(seen: Seen, tmp_path: Path) -> None:
    with IstiodControlPlane(Path("/istiod"), tmp_path) as istiod:
        for text in (STRICT, FINE, FINE, STRICT):
            assert istiod(view(text), text).keys() == {"client", "node-1", "node-2"}
        assert len(seen.generated) == 2
        assert len(policies(seen.started[0])) == 1, "the marker's own: of what was told last"
        istiod(view(FINE), FINE)
        assert len(policies(seen.started[0])) > 1
    assert (len(seen.started), seen.ended) == (1, 1)


def test_what_changes_within_a_trial_is_generated_anew_each_time(seen: Seen, tmp_path: Path) -> None:
    with IstiodControlPlane(Path("/istiod"), tmp_path) as istiod:
        for _ in range(2):
            istiod(view(STRICT), STRICT)
            istiod(view(FINE), FINE, within_trial=True)
    assert len(seen.generated) == 3
    assert len(set(seen.generated)) == 3, "each by a number of its own"


def test_istiod_is_started_again_when_it_has_ended_or_has_to_be_another(seen: Seen, tmp_path: Path) -> None:
    with IstiodControlPlane(Path("/istiod"), tmp_path) as istiod:
        istiod(view(STRICT), STRICT)
        seen.started[0].process.running = False
        istiod(view(FINE), FINE)
        assert (len(seen.started), seen.ended) == (2, 1)
        other = view(FINE, options=Options(native=ISTIO_PROXY))
        istiod(other, FINE)
        assert (len(seen.started), seen.ended) == (3, 2)
    assert seen.ended == 3
