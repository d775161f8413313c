"""What runs a model's stacks: the C core through cffi, or MLX on the GPU of a Mac, behind one interface."""
