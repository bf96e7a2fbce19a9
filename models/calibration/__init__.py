"""What scores mean: measures of quality, and maps from logits to probabilities."""
