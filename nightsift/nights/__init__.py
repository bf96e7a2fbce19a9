"""The night while it goes on: how it is watched, what is written down of it, and who is told."""
