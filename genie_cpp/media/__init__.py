"""Pictures and videos, in and out. Fitting them to a model's frame is in genie_cpp/frames.py."""
