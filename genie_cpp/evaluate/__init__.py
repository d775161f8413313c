"""How good a world is: as a world that is played (`life`), against what really happened (`truth`), and against another
file of the same world (`against`). `genie-eval` prints what these return."""

from .against import against
from .data import Play
from .life import Life, life
from .sweep import sweep
from .truth import truth

__all__ = ["Life", "Play", "against", "life", "sweep", "truth"]
