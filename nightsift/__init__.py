"""The domain of nightsift: frames, tables, units, flags and the doors to disk. No Prefect, no TensorFlow."""

__version__ = "0.1.0"
