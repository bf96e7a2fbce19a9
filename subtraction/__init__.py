"""Difference imaging: two images in, their difference out.

`subtract` takes arrays, `CCDData`, HDUs or files; `subtract_pair` a Pair, as the pipeline has it. Methods are the
modules of `subtraction.methods`; their file names are their names. What each of them promises stands in
`subtraction.contract`.
"""

from subtraction.api.images import subtract
from subtraction.api.pairs import make_options, method_names, subtract_pair
from subtraction.api.result import DifferenceImage

__all__ = ["DifferenceImage", "make_options", "method_names", "subtract", "subtract_pair"]
