"""Real or bogus: networks that score candidates, their training, measures and storage. The only user of Keras."""
