"""Difference imaging: a Pair in, a Difference out.

Methods are the modules of `subtraction.methods`; their file names are their names. What each of them promises stands
in `subtraction.contract`.
"""

from subtraction.api import make_options, method_names, subtract

__all__ = ["make_options", "method_names", "subtract"]
