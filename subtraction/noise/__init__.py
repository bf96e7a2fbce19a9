"""Background, noise and sky pixels of a difference."""
