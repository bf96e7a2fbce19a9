"""What scores mean: calibration for each unit, thresholds, measures of quality."""
