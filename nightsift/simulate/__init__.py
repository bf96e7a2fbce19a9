"""A simulated survey, hard enough to test, train and demonstrate on.

`options` and `unit_options` say what can be chosen, `plan` which exposures are taken; `field` and `galaxies` fill the
sky, `projection` and `optics` bring it to the focal plane, `render` draws it and what spoils it, `detector` makes
integers of it, `frame` puts one exposure together, and `survey` writes them all.
"""
