"""A model carried over to a new unit, and the labels worth asking for."""
