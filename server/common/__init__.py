"""What the page and the API share: limits, connections, messages, pictures decoded in a process of their own."""
