"""MW5xx: the testbed."""

from __future__ import annotations

from meshwise.core.errors import environment_fault, proxy_fault

LINK_REFUSED = environment_fault(
    "MW501", "the kernel refused {what}: {reason}", "`meshwise doctor` shows which kernel feature is missing"
)
RULES_REFUSED = environment_fault(
    "MW502",
    "nf_tables refused `{what}`: {reason}",
    "the kernel needs nf_tables with nat, redir and conntrack; load them as root: "
    "`modprobe -a nf_tables nft_chain_nat nft_redir nf_conntrack`",
)
PROCESS_GONE = proxy_fault(
    "MW503",
    "{name} {ending} while no one asked it to; its log ends with:\n{tail}",
    "its processes are started afresh for the next trial; if it happens again, read its log above",
)
CANNOT_RUN = environment_fault("MW504", "this machine cannot run the study: {name}: {detail}", "{remedy}")
FAKE_REFUSAL = proxy_fault(
    "MW590", "the proxy refused the posture `{posture}` (fake testbed)", "nothing: a test asked for it"
)
