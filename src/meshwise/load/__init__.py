"""The instrument: arrival schedule, wire protocols, engine, recording. Usable alone."""
