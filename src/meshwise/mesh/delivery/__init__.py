"""How configuration reaches proxies."""
