"""Worlds by name: the bundled ones, and published checkpoints that are fetched and converted."""
