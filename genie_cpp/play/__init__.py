"""Playing: sessions with branches, their files, recipes, the keyboard, and pictures in a terminal."""
