"""Where a trial lives."""
