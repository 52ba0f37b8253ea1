"""Spans: who receives them, and what they are read from (OTLP, and a graph node's own records)."""

COLLECTOR_PORT = 4317
"""OTLP over gRPC, on the loopback of every pod of a mesh that is traced."""
