"""meshwise: what each step of service-mesh security costs, measured on real proxies."""

__version__ = "0.1.0"
