"""The point-spread function of a frame, from clean stars (section 7)."""
