"""What is on a frame and not on the sky: found and masked."""
