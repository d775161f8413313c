"""The page of genie-play, and what answers it."""
