"""What trained networks do: receptive fields, attention, similarity, kernels, and accuracy on changed images."""
