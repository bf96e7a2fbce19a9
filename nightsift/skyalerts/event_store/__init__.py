"""What the archive holds of an event: its notices, and what it wants observed."""
