"""Samplers: processes, host, the proxies' own statistics; and the recorder that runs them over a trial."""
