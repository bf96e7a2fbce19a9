"""Real or bogus: networks that score candidates, how they are trained, measured and kept. The only user of Keras."""
