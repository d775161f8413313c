"""Strict readers of file contents: GGUF containers, saved worlds, and other kinds of files, to name them in errors."""
