"""A study as time series for other programs: what they are called, how they are written and sent, and the way
back, a production mesh's series as an archive."""
