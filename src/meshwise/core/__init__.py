"""Units, errors with a remedy, owned processes, logging: what every room may use."""
