"""What a saturation study declares: its objective, its search, its metrics. Pure; problems are gathered."""

from __future__ import annotations

from meshwise.study.file.keys import SearchPart, StudyFile
from meshwise.study.file.problems import Problem, impossible
from meshwise.study.model import Arrivals, Objective, Search

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
SEARCHED_METRICS = ("saturation_rps", "saturation_down_rps", "requests_per_cpu_s", "cpu_us_per_request",
                    "memory_bytes")  # fmt: skip
"""What a search gives a number for; latencies at different rates are not compared."""
ONLY_SEARCHED = SEARCHED_METRICS[:3]
LEAST_SOAK_NS = 10 * 10**9


def search_of(file: StudyFile, problems: list[Problem]) -> Search | None:
    """The search of a saturation study; None for any other kind."""
    if file.kind != "saturation":
        for key, given in (("objective", file.objective), ("search", file.search)):
            if given is not None:
                reason = f"`{key}` means something only in a saturation study"
                problems.append(impossible((key,), reason, "add `kind: saturation`, or remove it"))
        return None
    if file.objective is None:
        example = "for example `objective: {p99: 20ms, errors: 0.1%}`"
        problems.append(impossible(("kind",), "a saturation study needs an `objective`", example))
        return None
    given = file.objective
    quantiles = tuple((p, ns) for name, p in QUANTILES.items() if (ns := getattr(given, name)) is not None)
    if not quantiles:
        problems.append(
            impossible(("objective",), "an objective limits a response time", "for example `p99: 20ms`")
        )
    for name in QUANTILES:
        limit = getattr(given, name)
        if limit is not None and not 0 < limit <= file.load.timeout:
            reason = f"`{name}` must lie above 0 and within the time-out, which counts as an error"
            problems.append(impossible(("objective", name), reason, "lower it, or raise `load: timeout`"))
    if not given.errors < 1 or not given.completed > 0:
        problems.append(
            impossible(("objective",), "every rate would hold this", "usual: `errors: 0.1%, completed: 99%`")
        )
    if file.load.arrivals is Arrivals.CLOSED:
        reason = "a closed loop slows down with the system and so has no rate to search"
        problems.append(impossible(("load", "arrivals"), reason, "use `constant`, `uniform` or `poisson`"))
    shape = file.search or SearchPart()
    if shape.limit <= shape.start:
        problems.append(
            impossible(("search",), "`limit` must lie above `start`", "the default is 200/s to 20000/s")
        )
    if 0 < shape.soak < LEAST_SOAK_NS:
        reason = "a soak is judged by its windows of a second or more, and ten are the least"
        problems.append(impossible(("search", "soak"), reason, "usual: `soak: 30s`"))
    if not shape.soak_share > 0:
        problems.append(
            impossible(
                ("search", "soak_share"), "a soak at no rate shows nothing", "usual: `soak_share: 80%`"
            )
        )
    return Search(
        objective=Objective(quantiles, given.errors, given.completed),
        start_rps=shape.start,
        limit_rps=shape.limit,
        confirm=shape.confirm,
        steps=shape.steps,
        idle_ns=shape.idle,
        descend=shape.descend,
        soak_ns=shape.soak,
        soak_share=shape.soak_share,
    )


def primary_of(file: StudyFile, problems: list[Problem]) -> tuple[str, ...]:
    """The metrics of the verdicts; left out, those of the study's kind."""
    searched = file.kind == "saturation"
    if "primary" not in file.model_fields_set:
        return ("saturation_rps", "cpu_us_per_request") if searched else tuple(file.primary)
    for index, metric in enumerate(file.primary):
        if searched and metric not in SEARCHED_METRICS:
            remedy = f"one of {', '.join(f'`{name}`' for name in SEARCHED_METRICS)}"
            problems.append(
                impossible(("primary", index), f"`{metric}` is not compared at different rates", remedy)
            )
        if not searched and metric in ONLY_SEARCHED:
            problems.append(
                impossible(("primary", index), f"`{metric}` needs a search", "add `kind: saturation`")
            )
    return tuple(file.primary)
