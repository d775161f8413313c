"""The page to play in a browser (`genie-play`), the API for programs (`genie-serve`), and the server behind both."""
