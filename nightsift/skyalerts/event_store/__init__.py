"""What the archive holds of an event: its notices and its target."""
