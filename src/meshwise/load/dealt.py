"""One stream of arrivals, dealt at random to several targets.

The stream has as many arrivals as all targets together want. In each group of k consecutive ones every target
has one, in an order drawn from the seed. So the targets meet the same moments of the machine, none always
comes behind the same other, and none can lock in phase with another, as streams of their own would.

Of constant arrivals a target's own ones are then at random places of a grid that is k times as fine; of
poisson arrivals the stream is a Poisson process, and a target's share of it is somewhat more even.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from meshwise.load.intended import intended_times
from meshwise.load.schedule import Times
from meshwise.load.spec import LoadSpec
from meshwise.study.model import Arrivals

_ORDER = 1
"""Beside the seed: the order is another draw than the arrivals."""
ALIKE = ("rate_rps", "arrivals", "warmup_ns", "duration_ns", "shape", "processes", "cpu", "spin_ns")
"""What the targets of one stream have in common."""


@dataclass(frozen=True)
class Dealt:
    """What one instrument is asked to do: a target for each spec, whose fields ALIKE are the same."""

    targets: tuple[LoadSpec, ...]
    seed: int
    """Of arrivals and order; a spec's own is of what its requests and its shape draw."""

    @classmethod
    def one(cls, spec: LoadSpec) -> Dealt:
        return cls((spec,), spec.seed)

    @property
    def first(self) -> LoadSpec:
        return self.targets[0]

    def to_json(self) -> str:
        """The spec file's text: of one target the spec itself."""
        texts = [spec.to_json() for spec in self.targets]
        if len(texts) == 1:
            return texts[0]
        return json.dumps({"targets": [json.loads(text) for text in texts], "seed": self.seed}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Dealt:
        """The inverse of `to_json`. Raises ValueError, KeyError or TypeError for a text that is not one."""
        values = json.loads(text)
        if not isinstance(values, dict) or "targets" not in values:
            return cls.one(LoadSpec.from_json(text))
        return cls(tuple(LoadSpec.from_json(json.dumps(each)) for each in values["targets"]), values["seed"])

    def wrong(self) -> Iterator[tuple[bool, str]]:
        """(is it so?, what is wrong) of several targets, for `instrument.check`."""
        yield not self.targets, "there is no target"
        if len(self.targets) < 2:
            return
        for name in ALIKE:
            values = {getattr(spec, name) for spec in self.targets}
            yield len(values) > 1, f"targets of one stream have the same {name}"
        closed = self.first.arrivals is Arrivals.CLOSED
        yield closed, "several targets share one schedule: a closed loop has none"
        yield self.first.trace is not None, "a trace says every time: there is nothing to deal"


def times_of_each(dealt: Dealt) -> list[Times]:
    """Ascending intended times of each target, from the run's start, warm-up included."""
    count, spec = len(dealt.targets), dealt.first
    if count == 1:
        return [intended_times(spec)]
    stream = dataclasses.replace(
        spec,
        rate_rps=spec.rate_rps * count,
        shape=spec.shape and spec.shape.shared(count),
        seed=dealt.seed,
    )
    return deal(intended_times(stream), count, dealt.seed)


def deal(times: Times, targets: int, seed: int) -> list[Times]:
    """Ascending times to so many targets, each once in every group of as many; the rest of the last group
    goes to nobody."""
    groups = times[: times.size // targets * targets].reshape(-1, targets)
    places = np.tile(np.arange(targets, dtype=np.int16), (len(groups), 1))
    np.random.default_rng([seed, _ORDER]).permuted(places, axis=1, out=places)
    own = np.take_along_axis(groups, places.astype(np.int64), axis=1)
    return [np.ascontiguousarray(own[:, number]) for number in range(targets)]
