"""Errors of making a model."""

from __future__ import annotations

from nightsift.errors import NightsiftError


class TooFewGroups(NightsiftError):
    """The examples hang together too much to be split without leaks."""

    problem = "the examples make {found} groups that share no {keys}, at least {needed} needed"
    hint = "add units or fields, or split by fewer keys"


class TooFewUnits(NightsiftError):
    """Too many simulated units gave no examples."""

    problem = "only {found} of {asked} simulated units gave examples"
    hint = "the log tells why the others did not"


class TooFewLabels(NightsiftError):
    """The labels cannot tell the rate that a threshold is to keep."""

    problem = "the rule {rule!r} needs {needed} {label} labels, got {found}"
    hint = "label more candidates, or ask for a rate that so few can tell"


class TooFewNights(NightsiftError):
    """The calibration set has too few nights to tell how nights differ."""

    problem = "the calibration set of {unit} has {found} nights that can be compared, at least {needed} needed"
    hint = "reduce more nights, or name others with --reference"


class OneClassOnly(NightsiftError):
    """However the groups are dealt out, one part lacks real or bogus examples."""

    problem = "none of {deals} splits by {keys} leaves both classes in every part; the last has {parts}"
    hint = "add exposures, fields or units: an object seen on many exposures counts on one side only"


class SharedWithTest(NightsiftError):
    """What a model is tested on is also learnt from."""

    problem = "{count} values of {what} are in the test sets and in the sets to learn from, {example} for one"
    hint = "test on sets of other units"


class UnknownSource(NightsiftError):
    """What is to be left out is not there."""

    problem = "nothing to learn from has the source {name!r}; there are {sources}"
    hint = "leave out one of these sources, or a group of them: {groups}"


class NothingLeft(NightsiftError):
    """Too much is left out for anything to be learnt."""

    problem = "without {names} no {absent} examples are left in the part {part!r}"
    hint = "leave out less"
