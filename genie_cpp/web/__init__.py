"""Worlds as static web pages: `genie-cpp web` writes a plan and weights, and a page that plays them in the browser."""
