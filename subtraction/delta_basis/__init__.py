"""The kernel of free pixels (the model of SFFT)."""
