"""One small file per command; parses, calls one function, prints."""
