"""Network namespaces and real processes on one machine."""
