"""Policies that are pushed within a trial: AuthorizationPolicies that no request meets.

They deny a principal that nobody has. An ALLOW policy would change who is let through (what has one denies
all others), and a DENY that asks for more than a principal denies opaque TCP, where there is nothing else to
ask. They are made as values, not as YAML: reading a thousand documents takes a CPU for a second, which is
then missing to the trial that they are pushed in.
"""

from __future__ import annotations

from meshwise.mesh.changes import PolicyPush
from meshwise.mesh.istio.kinds import Action, AuthorizationPolicy, AuthorizationRule, ObjectMeta, Scope
from meshwise.study.model import Cell


def policies(cell: Cell, pushed: PolicyPush, trust_domain: str) -> tuple[AuthorizationPolicy, ...]:
    """`relevant`: on the workloads that are called, in turn; else on workloads that are not there, in the
    namespace of the entry, which istiod tells its sidecars of without a change."""
    called = [each for each in cell.topology.workloads if cell.topology.callers(each.name)]
    made = []
    for number in range(pushed.act.count):
        name = f"pushed-{pushed.number}-{number}"
        workload = called[number % len(called)] if pushed.act.relevant else cell.topology.entry
        label = workload.name if pushed.act.relevant else name
        rule = AuthorizationRule(({"principals": (f"{trust_domain}/ns/{name}/sa/{name}",)},), (), ())
        made.append(
            AuthorizationPolicy(
                ObjectMeta(name, workload.namespace),
                Scope(workload.namespace, {"app": label}),
                Action.DENY,
                (rule,),
            )
        )
    return tuple(made)
