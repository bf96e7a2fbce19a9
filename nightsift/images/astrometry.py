"""A TAN-SIP coordinate system fitted to points whose sky positions are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from astropy.wcs import WCS, Sip

from nightsift.sky.sphere import sky_to_plane

FloatArray = npt.NDArray[np.float64]

_MAX_DEGREE = 5


def fit_tan_sip(
    xy: FloatArray, sky: FloatArray, centre: FloatArray, centre_sky: FloatArray, accuracy: float = 0.01
) -> WCS:
    """Fit a tangential projection with SIP distortion (Shupe et al. 2005) of the lowest degree that suffices.

    Parameters
    ----------
    xy : ndarray of float64, shape (n, 2)
        Pixel positions, 0 at the centre of the first pixel; n of 40 or more, spread over the frame.
    sky : ndarray of float64, shape (n, 2)
        Right ascension and declination (deg, ICRS) of the same points.
    centre, centre_sky : ndarray of float64, shape (2,)
        Reference pixel and its position on the sky (deg); the fit passes through it.
    accuracy : float, optional
        Largest error to be content with (pixel).

    Returns
    -------
    astropy.wcs.WCS
        The coordinate system; without SIP where a linear one is accurate enough.
    """
    uv = xy - centre
    plane = np.stack(sky_to_plane(sky[:, 0], sky[:, 1], *centre_sky), axis=1)
    scale = max(float(np.abs(uv).max()), 1.0)
    cd: FloatArray = np.zeros((2, 2))
    a: FloatArray = np.zeros((2, 2))
    b: FloatArray = np.zeros((2, 2))
    for degree in range(1, _MAX_DEGREE + 1):
        powers = [(p, total - p) for total in range(1, degree + 1) for p in range(total, -1, -1)]
        terms = np.stack([(uv[:, 0] / scale) ** p * (uv[:, 1] / scale) ** q for p, q in powers], axis=1)
        solution = np.asarray(np.linalg.lstsq(terms, plane, rcond=None)[0], dtype=np.float64)
        cd = np.asarray(solution[:2].T / scale, dtype=np.float64)
        missed = (plane - terms @ solution) @ np.linalg.inv(cd).T
        if degree > 1:
            a, b = np.zeros((degree + 1, degree + 1)), np.zeros((degree + 1, degree + 1))
            for (p, q), row in zip(powers[2:], solution[2:] @ np.linalg.inv(cd).T, strict=True):
                a[p, q], b[p, q] = row / scale ** (p + q)
        if float(np.abs(missed).max()) < accuracy:
            break
    return _wcs(centre, centre_sky, cd, a, b)


def _wcs(centre: FloatArray, centre_sky: FloatArray, cd: FloatArray, a: FloatArray, b: FloatArray) -> WCS:
    curved = bool(np.any(a) or np.any(b))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if curved else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crpix = centre + 1.0
    wcs.wcs.crval = centre_sky
    wcs.wcs.cd = cd
    wcs.wcs.radesys = "ICRS"
    if curved:
        wcs.sip = Sip(a, b, None, None, centre + 1.0)
    wcs.wcs.set()
    return wcs
