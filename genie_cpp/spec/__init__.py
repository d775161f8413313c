"""What a model is: the description of a stack, the keys of the format, the hyper-parameters and their tensors."""
