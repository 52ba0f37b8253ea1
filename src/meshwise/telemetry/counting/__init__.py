"""Counters: instructions and system calls of one process between two moments."""
