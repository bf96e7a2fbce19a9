"""Gnomonic projection with SIP distortion, both ways, and the header that says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.io import fits

from nightsift.sky.sphere import Values, offset_position, sky_to_plane


@dataclass(frozen=True, slots=True, eq=False)
class TanSip:
    """World coordinates of a frame: TAN with the SIP convention (Shupe et al. 2005).

    Attributes
    ----------
    ra, dec : float
        World coordinates of the reference pixel (deg).
    crpix : tuple of float
        Reference pixel ``(x, y)``, 0 at the centre of the first pixel.
    cd : ndarray of float64, shape (2, 2)
        Pixel to intermediate world coordinates (deg/pixel).
    a, b : ndarray of float64, shape (4, 4)
        SIP coefficients ``a[p, q]`` of ``u**p v**q``.
    """

    ra: float
    dec: float
    crpix: tuple[float, float]
    cd: Values
    a: Values
    b: Values

    def to_pixel(self, ra: Values, dec: Values) -> tuple[Values, Values]:
        """Pixel positions of world coordinates.

        Parameters
        ----------
        ra, dec : ndarray, shape (n,)
            World coordinates (deg), within 90 deg of the reference.

        Returns
        -------
        x, y : ndarray, shape (n,)
            Pixel positions.
        """
        xi, eta = sky_to_plane(np.asarray(ra, float), np.asarray(dec, float), self.ra, self.dec)
        inverse = np.linalg.inv(self.cd)
        far_u = inverse[0, 0] * xi + inverse[0, 1] * eta
        far_v = inverse[1, 0] * xi + inverse[1, 1] * eta
        u, v = far_u, far_v
        limit = 3.0 * max(self.crpix)  # far outside, the polynomial has no meaning and the iteration no end
        for _ in range(10):  # the distortion is a small part of the scale: fixed point
            u, v = np.clip(u, -limit, limit), np.clip(v, -limit, limit)
            u, v = far_u - _polynomial(self.a, u, v), far_v - _polynomial(self.b, u, v)
        return u + self.crpix[0], v + self.crpix[1]

    def to_world(self, x: Values, y: Values) -> tuple[Values, Values]:
        """Return the world coordinates (deg) of pixel positions, shape (n,)."""
        u, v = np.asarray(x, float) - self.crpix[0], np.asarray(y, float) - self.crpix[1]
        u, v = u + _polynomial(self.a, u, v), v + _polynomial(self.b, u, v)
        xi = self.cd[0, 0] * u + self.cd[0, 1] * v
        eta = self.cd[1, 0] * u + self.cd[1, 1] * v
        return offset_position(self.ra, self.dec, xi, north=eta)

    def header(self, distortion: bool = True) -> fits.Header:
        """FITS cards of the coordinates.

        Parameters
        ----------
        distortion : bool, optional
            Whether the SIP terms are written.

        Returns
        -------
        astropy.io.fits.Header
            The cards.
        """
        kind = "-SIP" if distortion else ""
        cards = fits.Header()
        cards["RADESYS"] = "ICRS"
        cards["EQUINOX"] = 2000.0
        cards["CTYPE1"], cards["CTYPE2"] = f"RA---TAN{kind}", f"DEC--TAN{kind}"
        cards["CUNIT1"], cards["CUNIT2"] = "deg", "deg"
        cards["CRVAL1"], cards["CRVAL2"] = self.ra, self.dec
        cards["CRPIX1"], cards["CRPIX2"] = self.crpix[0] + 1.0, self.crpix[1] + 1.0
        for i in range(2):
            for j in range(2):
                cards[f"CD{i + 1}_{j + 1}"] = float(self.cd[i, j])
        if distortion:
            for name, terms in (("A", self.a), ("B", self.b)):
                cards[f"{name}_ORDER"] = 3
                for p, q in np.argwhere(terms != 0):
                    cards[f"{name}_{p}_{q}"] = float(terms[p, q])
        return cards


def make_projection(
    ra: float,
    dec: float,
    shape: tuple[int, int],
    *,
    pixel_scale: float,
    rotation: float,
    parity: int,
    distortion: float,
) -> TanSip:
    """Projection of a camera pointed somewhere.

    Parameters
    ----------
    ra, dec : float
        Pointing (deg).
    shape : tuple of int
        ``(ny, nx)``.
    pixel_scale : float
        Pixel scale (arcsec/pixel).
    rotation : float
        Position angle of the rows (deg).
    parity : {1, -1}
        -1 when east is to the left while north is up.
    distortion : float
        Radial shift of the corners (pixel); an eighth of it is a decentring term.

    Returns
    -------
    TanSip
        The projection; its reference pixel is the centre of the frame.
    """
    angle, scale = np.deg2rad(rotation), pixel_scale / 3600.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    cd = scale * turn @ np.diag([float(parity), 1.0])
    centre = ((shape[1] - 1) / 2.0, (shape[0] - 1) / 2.0)
    radius = float(np.hypot(*centre)) or 1.0
    cubic, square = distortion / radius**3, distortion / 8.0 / radius**2
    a, b = np.zeros((4, 4)), np.zeros((4, 4))
    a[3, 0] = a[1, 2] = cubic
    b[0, 3] = b[2, 1] = cubic
    a[2, 0], a[0, 2], b[1, 1] = 3 * square, square, 2 * square
    return TanSip(ra, dec, centre, cd, a, b)


def _polynomial(terms: Values, u: Values, v: Values) -> Values:
    total = np.zeros_like(u)
    for p, q in np.argwhere(terms != 0):
        total += terms[p, q] * u**p * v**q
    return total
