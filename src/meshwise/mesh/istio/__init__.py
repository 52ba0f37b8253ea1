"""What istiod would send to a sidecar, generated from Istio's own resources."""
