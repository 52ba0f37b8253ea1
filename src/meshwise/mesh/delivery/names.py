"""Files of a control plane's directory, and where proxies find it."""

from __future__ import annotations

CONTROLLER_DIRECTORY = "controller"
"""Beside the directories of the proxies, in which they run."""
XDS_SOCKET = "xds.sock"
COMMAND_SOCKET = "command.sock"
SNAPSHOT_FILE = "snapshot"
PROXY_UID_FILE = "uid"
"""Who may connect to the sockets of proxies; empty: the control plane's own user."""
SDS_SOCKET = "sds.sock"
"""In the directory of a proxy."""

XDS_CLUSTER = "xds-grpc"
SDS_CLUSTER = "sds-grpc"
