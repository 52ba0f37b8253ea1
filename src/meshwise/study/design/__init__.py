"""In which order trials run: blocks, searches, and what they will take."""
