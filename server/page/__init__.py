"""The page of genie-play, and the server code behind it."""
