"""Shared by the page and the API: limits, connections, messages, and picture decoding in a separate process."""
