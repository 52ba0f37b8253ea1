"""The vocabulary of results, as data: metrics, subjects, flags, findings; how they are written and read."""
