"""The network: architectures, inputs, storage, scores."""
