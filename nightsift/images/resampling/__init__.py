"""Frames resampled to the pixels of another, and averaged."""
