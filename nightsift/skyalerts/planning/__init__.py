"""Fields ranked for a sky alert, and what operators order."""
