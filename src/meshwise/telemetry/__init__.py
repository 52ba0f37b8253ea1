"""Samplers: proxy statistics, processes, host."""
