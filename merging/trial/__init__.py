"""Try a merge: generation, evaluation and search."""
