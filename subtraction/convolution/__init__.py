"""Sums with kernels that change over the frame, tile by tile and band by band (section 5)."""
