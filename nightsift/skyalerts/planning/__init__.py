"""Fields ranked for an alert, and what operators order."""
