"""Where a telescope stands: its Sun, its night, and what can be observed from there."""
