"""The only reader and writer of a study's directory."""
