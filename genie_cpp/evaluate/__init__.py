"""Measures how good a world is: how it plays (`life`), how close it is to recorded play (`truth`), and how close to
another file of the same world (`against`). `genie-eval` prints what these return."""

from genie_cpp.evaluate.against import against
from genie_cpp.evaluate.data import Play
from genie_cpp.evaluate.life import Life, life
from genie_cpp.evaluate.sweep import sweep
from genie_cpp.evaluate.truth import truth

__all__ = ["Life", "Play", "against", "life", "sweep", "truth"]
