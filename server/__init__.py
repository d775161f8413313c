"""The page to play in a browser, and the server behind it (`genie-play`)."""
