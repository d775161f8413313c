"""Playing: a session with its branches, the files it is saved in, recipes, the keyboard and pictures in a terminal."""
