"""Pictures and videos, in and out, apart from what fits them to a model (genie_cpp/frames.py)."""
