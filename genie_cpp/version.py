"""The package's version, the one place it is read from at run time."""

from importlib.metadata import version

__version__ = version("genie_cpp")
