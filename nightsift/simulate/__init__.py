"""A simulated survey, hard enough to test, train and demonstrate on.

`options` says what can be chosen, `presets` names some surveys and draws units at random, `plan` says which
exposures are taken, `population` and `transients` fill the sky, `projection` and `optics` bring it to the
focal plane, `render` and `galaxies` draw it, `artefacts` spoil it, `detector` makes integers of it, `frame`
puts one exposure together, `survey` writes them all, and `score` tells how many transients a night recovered.
"""
