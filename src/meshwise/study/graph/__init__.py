"""Service graphs, and the forms in which they are read."""
