"""A real istiod under test: a Kubernetes API of its own, its process, and what it would send to sidecars."""
