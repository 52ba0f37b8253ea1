"""One trial's tables to numbers: its metrics, the judgement of its window, what limited it."""
