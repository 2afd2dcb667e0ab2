"""A recipe becomes a model on disk."""
