"""Stars found, measured and deblended."""
