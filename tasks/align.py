"""Frame to pair: background, stars, PSF, alignment with the template, resampling."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from nightsift.frames import Frame, Pair
from nightsift.images.align import Alignment, align
from nightsift.images.background import subtract_background
from nightsift.images.stars import StarTable, find_stars
from nightsift.images.warp import make_pair
from nightsift.templates import Template
from nightsift.units import Unit
from subtraction.psf.fit import fit_psf


@task(name="background", persist_result=False, cache_policy=NO_CACHE)
def background(frame: Frame, unit: Unit) -> Frame:
    """Subtract the sky.

    Parameters
    ----------
    frame : Frame
        Frame with sky.
    unit : Unit
        With its mesh.

    Returns
    -------
    Frame
        Frame without sky.
    """
    return subtract_background(frame, unit.background.mesh)


@task(name="stars", persist_result=False, cache_policy=NO_CACHE)
def stars(frame: Frame) -> StarTable:
    """Find the stars of a background-subtracted frame.

    Parameters
    ----------
    frame : Frame
        Background-subtracted.

    Returns
    -------
    ndarray of STAR_DTYPE
        The stars.
    """
    return find_stars(frame)


@task(name="psf", persist_result=False, cache_policy=NO_CACHE)
def psf(frame: Frame, found: StarTable, unit: Unit) -> Frame:
    """Give the frame its point-spread function.

    Parameters
    ----------
    frame : Frame
        Background-subtracted.
    found : ndarray of STAR_DTYPE
        Its stars.
    unit : Unit
        With its table ``[psf]``.

    Returns
    -------
    Frame
        The frame with its PSF.
    """
    order = None if unit.psf.order < 0 else unit.psf.order
    return frame.replace(psf=fit_psf(frame, found, order=order))


@task(name="align", persist_result=False, cache_policy=NO_CACHE)
def align_to(frame: Frame, found: StarTable, template: Template, unit: Unit) -> Alignment:
    """Match the stars of the frame with those of its template.

    Parameters
    ----------
    frame : Frame
        The science frame.
    found : ndarray of STAR_DTYPE
        Its stars.
    template : Template
        Its template.
    unit : Unit
        With its table ``[alignment]``.

    Returns
    -------
    Alignment
        The mapping from science to template pixels.
    """
    return align(frame, found, template, unit.alignment)


@task(name="warp", persist_result=False, cache_policy=NO_CACHE)
def warp(frame: Frame, template: Template, alignment: Alignment) -> Pair:
    """Resample the template to the grid of the frame.

    Parameters
    ----------
    frame : Frame
        The science frame.
    template : Template
        Its template.
    alignment : Alignment
        The mapping between them.

    Returns
    -------
    Pair
        Both on one grid.
    """
    return make_pair(frame, template, alignment)
