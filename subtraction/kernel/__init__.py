"""The kernel of `hotpants`: anchor stars, their stamps, a basis, a fit that varies over the frame (sections 1 to 4)."""
