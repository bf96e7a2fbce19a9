"""Difference against a matched frame, for the methods that convolve one frame by a kernel to match the other.

See docs/algorithms.md, section 5.
"""

from __future__ import annotations

import numpy as np

from nightsift.frames import Frame
from subtraction.convolution.sweep import difference
from subtraction.finish import Raw
from subtraction.kernel.anchors import Anchors
from subtraction.kernel.spatial import ImageField, sample_grid
from subtraction.masks.union import grow_by_kernel, unite
from subtraction.sky.noise import Filters
from subtraction.verdict.flux_scale import flux_scale_metrics


def template_is_convolved(anchors: Anchors, wanted: str) -> bool:
    """Whether to convolve the template: the sharper frame, the template where both are alike.

    Parameters
    ----------
    anchors : Anchors
        Stars that tell both seeings.
    wanted : str
        ``"template"``, ``"science"``, or ``"auto"``.

    Returns
    -------
    bool
        True for the template.
    """
    if wanted != "auto":
        return wanted == "template"
    return anchors.fwhm_template <= 1.03 * anchors.fwhm_science


def subtract_matched(
    science: Frame,
    target: Frame,
    reference: Frame,
    kernel: ImageField,
    filters: Filters,
    anchors: Anchors,
    freedom: float,
    metrics: dict[str, float],
    threads: int = 0,
) -> Raw:
    """Subtract, whiten, and propagate variance and mask.

    Parameters
    ----------
    science : Frame
        The science frame, the same object as `target` or `reference`.
    target, reference : Frame
        The frame that is matched and the frame that is convolved.
    kernel : ImageField
        Kernel that matches them.
    filters : Filters
        What `subtraction.sky.noise.make_filters` gives for it.
    anchors : Anchors
        Stars on which the residuals are tested.
    freedom : float
        Factor on squared residuals there for the freedom of the fit.
    metrics : dict of str to float
        Figures of merit of the fit; those of the seeings and of the kernel are added.
    threads : int, optional
        Number of threads, 0 for all cores.

    Returns
    -------
    Raw
        What `subtraction.finish.finish` takes.
    """
    template_convolved = target is science
    mask = grow_by_kernel(reference.mask, kernel, threads=threads)
    hidden = unite(target.mask, mask, template_convolved, threads)
    # The filter is a spike with a shallow ring, so that a missing neighbour changes little.
    final = grow_by_kernel(mask, filters.whitening, tail=0.1, threads=threads) if filters.whitening.half else mask
    centre = float(kernel.total(*(np.array([(n - 1) / 2]) for n in science.shape[::-1]))[0])
    scale = 0.0 if template_convolved else 1.0 / centre
    data, variance, model = difference(target, reference, kernel, filters, mask, final, hidden, scale, threads)
    seeings = {"fwhm_science": anchors.fwhm_science, "fwhm_template": anchors.fwhm_template}
    return Raw(
        data=data,
        variance=variance,
        model=model,
        mask=final,
        hidden=hidden,
        psf=filters.psf,
        convolved="template" if template_convolved else "science",
        kernel_sum=centre if template_convolved else 1.0 / centre,
        x=anchors.x,
        y=anchors.y,
        freedom=freedom,
        metrics={**seeings, **metrics, **flux_scale_metrics(kernel, anchors.x, anchors.y)},
        kernel_map=sample_grid(kernel),
    )
