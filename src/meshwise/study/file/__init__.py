"""A study file: YAML to values, every mistake with its place."""
