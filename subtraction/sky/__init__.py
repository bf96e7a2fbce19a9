"""The sky of a difference: its background, its noise, its statistics (sections 8, 10, 11)."""
