"""Figures of merit of a difference, and the verdict drawn from them."""
