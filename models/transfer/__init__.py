"""A model adapted to a new unit: fine-tuning, calibration and thresholds, and the labels worth asking for."""
