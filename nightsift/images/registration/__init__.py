"""Where the pixels of one frame lie on another, and on the sky."""
