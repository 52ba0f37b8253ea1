"""How load moves and what it carries: profiles, traces, payloads."""
