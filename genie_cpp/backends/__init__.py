"""What runs a model's stacks: the C core through cffi, or MLX on a Mac's GPU, behind one interface."""
