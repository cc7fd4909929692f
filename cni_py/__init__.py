"""cni-py: a CNI plugin suite for Linux."""

__version__ = "0.1.0"
