"""The package's version. At run time it is read from here only."""

from importlib.metadata import version

__version__ = version("genie_cpp")
