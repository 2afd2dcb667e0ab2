"""Merging on CUDA GPUs: kernels that merge many tensors at once, and what they need to know."""
