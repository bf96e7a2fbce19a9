"""Stars found, measured and told apart."""
