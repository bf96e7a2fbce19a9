"""The front doors of difference imaging: images of people in `images`, pairs of the pipeline in `pairs`."""

from subtraction.api.images import subtract
from subtraction.api.inputs import DetectorFacts, frame_of
from subtraction.api.pairs import make_options, method_names, subtract_pair
from subtraction.api.result import DifferenceImage

__all__ = [
    "DetectorFacts", "DifferenceImage", "frame_of", "make_options", "method_names", "subtract", "subtract_pair",
]  # fmt: skip
