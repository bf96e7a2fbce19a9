"""Errors as data: what is wrong, what was received, and what to do about it.

Every error that nightsift raises on purpose derives from `NightsiftError`, carries its facts as keyword arguments and
survives pickling, so that the ledger can store them and a process pool can hand them over. They stand in sections:
configuration and frames, files and processes, making models, alerts.
"""

from __future__ import annotations

from typing import Any, ClassVar


class NightsiftError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    **facts
        Named facts of this case; they fill the placeholders of `problem` and `hint`.

    Attributes
    ----------
    problem : str
        What is wrong and what was received, as a format string over the facts.
    hint : str
        What the user can do, as a format string over the facts.
    facts : dict
        The facts, as given.
    """

    problem: ClassVar[str] = "something went wrong"
    hint: ClassVar[str] = ""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.problem.format(**self.facts)
        return f"{text}. {self.hint.format(**self.facts)}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.facts)

    @property
    def reason(self) -> str:
        """Name of the error class, as it stands in the ledger."""
        return type(self).__name__


def _rebuild(kind: type[NightsiftError], facts: dict[str, Any]) -> NightsiftError:
    return kind(**facts)


# Configuration and frames


class ConfigurationError(NightsiftError):
    """A configuration file or option is wrong (exit code 2)."""

    problem = "{file}: [{table}] {key}: {what}"
    hint = "{advice}"


class FrameError(NightsiftError):
    """The frame itself is no good: it is refused, and the night goes on."""


class UnreadableFits(FrameError):
    """The file is no FITS file, is truncated, or holds no image."""

    problem = "{path} cannot be read as a FITS image: {what}"
    hint = "copy the file again from its source, or check it with fitscheck"


class MissingFact(FrameError):
    """A fact that the unit needs is not in the header."""

    problem = "{path}: the fact '{fact}' of unit '{unit}' was looked for in card {card} and not found"
    hint = "name the right card or a constant under [facts] in {file}"


class BadFact(FrameError):
    """A fact was found, but its value makes no sense."""

    problem = "{path}: the fact '{fact}' of unit '{unit}' reads {value!r}, which is not {expected}"
    hint = "correct the card or give a constant under [facts] in {file}"


class BlankFrame(FrameError):
    """The frame has no usable pixels or no structure at all."""

    problem = "{where} is blank: {what}"
    hint = "check shutter, readout and the saturation fact of the unit"


class TooFewStars(FrameError):
    """Not enough stars for the step named."""

    problem = "{found} usable stars found in {where}, {needed} needed"
    hint = "check focus, clouds and the detection thresholds of the unit"


class AlignmentFailed(FrameError):
    """The frame does not match its template's stars."""

    problem = "{where} does not match its template: {what} ({matched} stars matched, residual {residual_px:.2f} px)"
    hint = "check that field and pixel scale are right, and the limits under [alignment] of the unit"


class NoTemplate(NightsiftError):
    """No template exists yet for this field, unit and band: the exposure waits."""

    problem = "no template for unit '{unit}', field '{field}', band '{band}'"
    hint = "build one with: nightsift template"


class PoorCoverage(FrameError):
    """The template covers too little of the frame."""

    problem = "the template covers {coverage:.0%} of {where}, at least {needed:.0%} needed"
    hint = "extend the template with frames of this pointing, or lower min_coverage under [template] of the unit"


class DetectionFailed(FrameError):
    """The sources of an image cannot be extracted."""

    problem = "the sources of {where} cannot be extracted: {what}"
    hint = "too low a threshold, or an image whose sky is not zero? Look at it, or raise the threshold"


class SubtractionFailed(FrameError):
    """The difference cannot be made or fails its own checks."""

    problem = "{where} cannot be subtracted by '{method}': {what}"
    hint = "look at the frame and its template with: nightsift frame --keep-difference"


class BadImage(FrameError):
    """An image that a person gave cannot be used, or a fact of it is missing."""

    problem = "the {which} image cannot be used: {what}"
    hint = "{advice}"


# Files, sources and processes


class SourceError(NightsiftError):
    """A place cannot be reached or listed: the machine, not the frame; it is tried again."""

    problem = "{url} cannot be reached: {what}"
    hint = "check the path or URL, the network and the credentials; s3 and http need: pip install 'nightsift[remote]'"


class DiskFull(NightsiftError):
    """The disk or quota is full: nothing half-written is left."""

    problem = "no space left to write {path} ({free} bytes free)"
    hint = "free some space or name another archive, and run again: what is done stays done"


class BadTable(NightsiftError):
    """A table on disk is missing, damaged, or has another schema."""

    problem = "{path} cannot be read as a table: {what}"
    hint = "a table of the archive: remove the file and run the night again; a catalogue: check path and columns"


class NotInArchive(NightsiftError):
    """An archive holds nothing of this name."""

    problem = "{archive} has no {what} '{name}'"
    hint = "{advice}"


class ProcessDied(NightsiftError):
    """The process that reduced an exposure was killed, or crashed, again and again."""

    problem = "the process that reduced it died {deaths} times"
    hint = "memory? reduce it alone with nightsift frame; what kills it there is a bug to be reported"


class TimedOut(NightsiftError):
    """An exposure took longer than it may, and its process was killed."""

    problem = "{label} took longer than {seconds:.0f} s, and its process was stopped"
    hint = (
        "a slow disk or file server? The next run tries it again; where it hangs each time, look at it with nightsift "
        "frame, or allow more: exposure_timeout under [watch] of the survey file"
    )


class CompilationFailed(NightsiftError):
    """The small survey that is reduced to compile all code did not come through."""

    problem = "with the method '{method}' its exposures ended as {states}, not all as done"
    hint = "something is wrong with this installation: nightsift doctor tells what; nightsift frame shows the error"


# Models and their training


class ModelMismatch(NightsiftError):
    """A model on disk does not fit what is asked of it."""

    problem = "model '{model}' cannot be used: {what}"
    hint = "retrain it with nightsift train, or name another one under [model] of the unit"


class NoExamples(NightsiftError):
    """No exposure of a survey gave examples to learn from."""

    problem = "none of {exposures} exposures of the survey {survey} gave examples"
    hint = "the log tells why: are there templates, and do the frames reduce?"


class TooFewGroups(NightsiftError):
    """The examples hang together too much to be split without leaks."""

    problem = "the examples make {found} groups that share no {keys}, at least {needed} needed"
    hint = "learn from more exposures, fields or units: a part to learn from, one to stop by and one to test are needed"


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


# Alerts


class BadNotice(NightsiftError):
    """A notice cannot be read, or lacks what an alert needs: it is refused, and nothing else is touched."""

    problem = "the notice {where} is refused: {what}"
    hint = "a notice that ought to be understood: keep the file and report it; see docs/alerts.md for what is read"


class BadSkyMap(NightsiftError):
    """A sky map is damaged, too large, or no probability on the sky."""

    problem = "the sky map {where} is refused: {what}"
    hint = "fetch it again, or take the multi-order version of the map"


class NoLocalisation(NightsiftError):
    """An alert tells nothing of where on the sky it is, or its map lies elsewhere."""

    problem = "the alert {event} has no position to rank fields by: {what}"
    hint = "give its sky map: nightsift alert plan NOTICE --sky-map FILE"


class BadTiling(NightsiftError):
    """A tile grid cannot be read."""

    problem = "the tile grid {where} cannot be read: {what}"
    hint = "a grid has one field a line: name, right ascension and declination (deg); see docs/alerts.md"


class NoSuchAlert(NightsiftError):
    """The archive knows no alert of this name."""

    problem = "there is no alert '{event}' in {archive}"
    hint = "{advice}"


class BadAlertFile(NightsiftError):
    """A file of a running alert is damaged."""

    problem = "{path} is damaged: {what}"
    hint = "remove it and give the notice again: nightsift alert run"
