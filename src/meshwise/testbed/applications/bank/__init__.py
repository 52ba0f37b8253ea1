"""The reference application: a small bank with its stores."""
