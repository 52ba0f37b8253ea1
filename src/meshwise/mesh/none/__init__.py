"""No mesh: the baseline."""
