"""Bytes of files, read strictly: GGUF containers, saved worlds, and files of other kinds, known to be named."""
