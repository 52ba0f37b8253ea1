"""Terminal and HTML: only shows findings."""
