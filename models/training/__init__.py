"""Training sets and the training of networks."""
