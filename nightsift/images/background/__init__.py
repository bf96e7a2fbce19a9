"""The level of the sky and its noise."""
