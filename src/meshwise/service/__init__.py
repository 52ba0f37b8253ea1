"""The programs under load."""
