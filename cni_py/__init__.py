"""cni-py: a CNI plugin suite for Linux."""

__all__ = ["__version__"]

try:
    from ._version import __version__
except ModuleNotFoundError:
    # A checkout that nobody has built: only a wheel says which version it is.
    __version__ = "0.dev0"
