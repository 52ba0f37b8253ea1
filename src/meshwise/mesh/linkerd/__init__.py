"""Linkerd's data plane: a small control plane that answers linkerd2-proxy."""
