"""The REST and websocket API of genie-serve."""
