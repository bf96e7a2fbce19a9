"""The parts of `sfft`: a kernel of single pixels, fitted to all pixels that hold light (section 14)."""
