"""Getting real proxies: pulled from their makers, checked by digest, kept in the user's cache."""
