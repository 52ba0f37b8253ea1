"""The real istiod: given a Kubernetes API of ours, asked what it generates, and compared with `translate`."""
