"""The loop of a study, and the schedules that say what it does next."""
