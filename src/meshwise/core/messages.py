"""The one catalogue of messages: code, fault, what, remedy. Codes are never reused.

A section per room. Codes: MW1xx study, MW2xx environment, MW3xx load, MW4xx mesh and proxies,
MW5xx testbed, MW6xx archive, MW7xx analysis and report, MW8xx proxies and registries, MW9xx service.
"""

from __future__ import annotations

from meshwise.core.errors import Fault, Message

# --- study -------------------------------------------------------------------------------------
BAD_UNIT = Message(
    "MW101", Fault.STUDY, "`{text}` is not a {kind}", "write a number and a unit, for example {example}"
)

# --- environment -------------------------------------------------------------------------------

# --- load --------------------------------------------------------------------------------------

# --- mesh and proxies --------------------------------------------------------------------------

# --- testbed -----------------------------------------------------------------------------------

# --- archive -----------------------------------------------------------------------------------

# --- analysis and report -----------------------------------------------------------------------

# --- proxies and registries --------------------------------------------------------------------

# --- service -----------------------------------------------------------------------------------
