"""Model files: the strict GGUF reader, the keys of the format, and the hyper-parameters that they hold."""
