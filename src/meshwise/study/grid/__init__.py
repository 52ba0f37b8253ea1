"""The cells that a study asks for, and those of its A/A control."""
