"""A simulated survey, hard enough to test, train and demonstrate on.

`options` says what can be chosen, `presets` names some surveys and draws units at random, `plan` says which
exposures are taken, `population` and `transients` fill the sky, `projection` and `optics` bring it to the
focal plane, `render` and `galaxies` draw it, `artefacts` spoil it, `detector` makes integers of it, `frame`
puts one exposure together, `survey` writes them all, and `score` tells how many transients a night recovered.
"""

from nightsift.simulate.frame import SimulatedFrame, simulate_frame
from nightsift.simulate.options import ArtefactOptions, SimulationOptions, SkyOptions, TransientOptions
from nightsift.simulate.random_units import random_unit
from nightsift.simulate.render import render_stars
from nightsift.simulate.score import score_night
from nightsift.simulate.scorecard import Scorecard
from nightsift.simulate.survey import simulate
from nightsift.simulate.unit_options import DetectorOptions, OpticsOptions, UnitOptions

__all__ = [
    "ArtefactOptions",
    "DetectorOptions",
    "OpticsOptions",
    "Scorecard",
    "SimulatedFrame",
    "SimulationOptions",
    "SkyOptions",
    "TransientOptions",
    "UnitOptions",
    "random_unit",
    "render_stars",
    "score_night",
    "simulate",
    "simulate_frame",
]
