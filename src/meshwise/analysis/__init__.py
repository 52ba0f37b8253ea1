"""Pure functions from archive tables to findings."""
