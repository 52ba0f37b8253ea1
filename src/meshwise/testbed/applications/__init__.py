"""What is under load, made anew for each trial and judged after it (`seam.Application`)."""
