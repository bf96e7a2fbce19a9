"""Training sets, the training of networks, and what a trained network is worth."""
