"""Frames find their template, with or without WCS; a wrong field is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from nightsift.core.errors import AlignmentFailed
from nightsift.core.flags import Mask
from nightsift.core.frames import Template
from nightsift.images.registration.align import align, register
from nightsift.images.registration.asterism_match import match_pattern
from nightsift.images.registration.mapping import fit_tan_sip
from nightsift.images.stars.stars import STAR_DTYPE, find_stars
from nightsift.unit.units import AlignmentOptions

OPTIONS = AlignmentOptions(order=3, min_stars=8, max_residual=0.5, tolerance=30.0, use_wcs=True)


def star_table(xy, flux):
    stars = np.zeros(len(xy), dtype=STAR_DTYPE)
    stars["x"], stars["y"] = xy.T
    stars["flux"], stars["flux_err"], stars["snr"] = flux, 0.01 * flux, flux / 100
    stars["fwhm"] = 3.0
    return stars[np.argsort(-stars["flux"])]


def rotation(angle, scale=1.0, mirrored=False):
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return matrix @ np.diag([-1.0, 1.0]) if mirrored else matrix


class Sky:
    """Stars on a plane, and lists of them as two cameras would see them, each with its own strangers."""

    def __init__(self, rng, n, size, matrix=None, shift=(0.0, 0.0), bend=0.0):
        self.rng, self.size = rng, size
        self.centre = np.array([size / 2, size / 2])
        self.matrix, self.shift, self.bend = np.eye(2) if matrix is None else matrix, np.array(shift), bend
        self.xy = rng.uniform(-size, 2 * size, (9 * n, 2))
        self.flux = 10 ** rng.exponential(0.6, 9 * n) * 3000

    def there(self, xy):
        """True mapping from science to template."""
        u = (xy - self.centre) / self.size
        return (xy - self.centre) @ self.matrix.T + self.centre + self.shift + self.bend * u * (u**2).sum(1)[:, None]

    def table(self, xy, missing, spurious, noise=0.05):
        inside = ((xy > 0) & (xy < self.size)).all(axis=1)
        rows = np.flatnonzero(inside)
        rows = rows[self.rng.random(len(rows)) >= missing]
        n = int(spurious * len(rows))
        seen = np.vstack((xy[rows] + self.rng.normal(0, noise, (len(rows), 2)), self.rng.uniform(0, self.size, (n, 2))))
        flux = np.append(self.flux[rows] * self.rng.normal(1, 0.05, len(rows)), self.rng.choice(self.flux[rows], n))
        return star_table(seen, flux)

    def pair(self, missing=0.15, spurious=0.3):
        return self.table(self.xy, missing, spurious), self.table(self.there(self.xy), missing, spurious)


@pytest.fixture
def blank(make_frame):
    def make(size, wcs=None, **facts):
        frame = make_frame(np.array([5.0]), np.array([5.0]), np.array([1.0]), (8, 8), **facts)
        planes = np.zeros((size, size), dtype=np.float32)
        return frame.replace(data=planes, variance=planes + 1, mask=planes.astype(np.uint16), wcs=wcs)

    return make


def template_of(frame, stars):
    return Template(frame, stars, np.ones(frame.shape, dtype=np.float32), "t", 25.0)


def check(sky, alignment, limit=0.1):
    """Compare with the true mapping wherever the template really is."""
    xy = sky.rng.uniform(0, sky.size - 1, (500, 2))
    there = sky.there(xy)
    inside = ((there > 0) & (there < sky.size)).all(axis=1)
    found = np.column_stack(alignment.to_template(*xy[inside].T))
    error = np.hypot(*(found - there[inside]).T)
    assert np.median(error) < limit
    assert error.max() < 10 * limit


CASES = {
    "sub-pixel shift": {"shift": (0.37, -0.62)},
    "half a frame": {"shift": (0.4, 0.35)},
    "half a turn": {"matrix": rotation(np.pi), "shift": (21.3, -14.8)},
    "any angle": {"matrix": rotation(1.1)},
    "mirrored": {"matrix": rotation(0.4, mirrored=True), "shift": (5.5, 3.1)},
    "other scale": {"matrix": rotation(0.1, 1.07)},
    "distorted": {"shift": (12.0, 7.0), "bend": 0.012},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("n", "size"), [(60, 600), (800, 2000)])
def test_pattern(rng, blank, case, n, size):
    change = dict(CASES[case])
    if case == "half a frame":
        change["shift"] = tuple(size * s for s in change["shift"])
    change["bend"] = size * change.get("bend", 0.0)
    sky = Sky(rng, n, size, **change)
    stars, reference = sky.pair()
    alignment = align(blank(size), stars, template_of(blank(size), reference), options=OPTIONS)
    assert alignment.method == "pattern"
    assert alignment.residual < 0.15
    assert alignment.wcs is None
    check(sky, alignment, 0.1 if n > 100 else 0.2)


def test_the_grid_gets_finer_where_the_mapping_bends(rng, blank):
    sky = Sky(rng, 800, 1000, bend=25.0)
    stars, reference = sky.pair()
    found = register(blank(1000), stars, blank(1000), reference_stars=reference, options=OPTIONS)
    alignment = align(blank(1000), stars, template_of(blank(1000), reference), options=OPTIONS)
    assert alignment.step < 32
    xy = rng.uniform(30, 970, (2000, 2))  # where stars end, so does the curved part, with a kink
    error = np.column_stack(alignment.to_template(*xy.T)) - found.mapping(xy)
    assert np.abs(error).max() < 0.006
    straight = Sky(rng, 800, 1000)
    stars, reference = straight.pair()
    assert align(blank(1000), stars, template_of(blank(1000), reference), options=OPTIONS).step == 32


def test_sparse(rng, blank):
    """About fifteen stars, a tenth of them strangers: six in common are enough, and no answer is a wrong one."""
    enough = 0
    for _ in range(40):
        sky = Sky(rng, 15, 700, rotation(rng.uniform(0, 6.28)), rng.uniform(-60, 60, 2))
        stars, reference = sky.pair(0.1, 0.1)
        first, second = (np.column_stack((table["x"], table["y"])) for table in (stars, reference))
        common = int((cKDTree(second).query(sky.there(first))[0] < 0.5).sum())
        enough += common >= 6
        match = match_pattern(first, second)
        assert match is not None or common < 6
        if match is not None:
            xy = rng.uniform(150, 550, (50, 2))
            assert np.hypot(*(match.affine(xy) - sky.there(xy)).T).max() < 1.0
    assert enough > 20


def test_crowded(rng, blank):
    sky = Sky(rng, 10000, 2000, rotation(0.01), (13.0, -8.0), bend=5.0)
    stars, reference = sky.pair()
    assert len(stars) > 8000
    alignment = align(blank(2000), stars, template_of(blank(2000), reference), options=OPTIONS)
    assert alignment.matched > 1000
    check(sky, alignment, 0.05)


@pytest.mark.parametrize("n", [12, 40, 150, 1000, 6000])
def test_a_wrong_field_is_refused(rng, blank, n):
    one, other = Sky(rng, n, 1000), Sky(rng, n, 1000)
    with pytest.raises(AlignmentFailed, match="made-up-1 does not match its template"):
        align(blank(1000), one.pair()[0], template_of(blank(1000), other.pair()[1]), options=OPTIONS)


def make_wcs(centre=(150.0, 2.0), scale=1.0, angle=0.0, size=1000, bend=0.0):
    xy = np.stack(np.meshgrid(np.linspace(0, size, 12), np.linspace(0, size, 12)), axis=-1).reshape(-1, 2)
    plain = WCS(naxis=2)
    plain.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    plain.wcs.crpix = [size / 2 + 1, size / 2 + 1]
    plain.wcs.crval = centre
    plain.wcs.cd = rotation(angle) @ np.diag([-scale, scale]) / 3600
    u = (xy - size / 2) / size
    bent = xy + bend * u * (u**2).sum(1)[:, None]
    middle = np.array([size / 2, size / 2])
    return fit_tan_sip(xy, plain.all_pix2world(bent, 0), middle, centre_sky=np.array(centre))


@pytest.mark.parametrize("bend", [0.0, 25.0])
def test_wcs_refined(rng, blank, bend):
    """The pointing in the header is 15 arcsec off: matched through the WCS, and put right."""
    true, header = make_wcs(bend=bend, angle=0.3), make_wcs((150.003, 2.003), bend=bend, angle=0.3)
    reference_wcs = make_wcs((150.01, 1.98))
    xy = rng.uniform(0, 1000, (400, 2))
    flux = 10 ** rng.uniform(3.5, 5, 400)
    there = reference_wcs.all_world2pix(true.all_pix2world(xy, 0), 0)
    inside = ((there > 0) & (there < 1000)).all(axis=1)
    stars = star_table(xy + rng.normal(0, 0.05, xy.shape), flux)
    reference = star_table(there[inside] + rng.normal(0, 0.05, there[inside].shape), flux[inside])
    alignment = align(blank(1000, header), stars, template_of(blank(1000, reference_wcs), reference), options=OPTIONS)
    assert alignment.method == "wcs"
    assert alignment.residual < 0.12
    assert alignment.wcs is not None
    grid = rng.uniform(50, 950, (300, 2))
    error = 3600 * (alignment.wcs.all_pix2world(grid, 0) - true.all_pix2world(grid, 0))
    assert np.abs(error).max() < 0.15
    # What FITS headers can hold comes back from them.
    again = WCS(alignment.wcs.to_header(relax=True))
    np.testing.assert_allclose(again.all_pix2world(grid, 0), alignment.wcs.all_pix2world(grid, 0), atol=1e-8)


def test_wrong_wcs_falls_back_to_the_pattern_and_inherits(rng, blank):
    true, wrong = make_wcs(), make_wcs((12.0, -60.0), angle=2.0)
    sky = Sky(rng, 200, 1000, shift=(30.0, 20.0))
    stars, reference = sky.pair()
    alignment = align(blank(1000, wrong), stars, template_of(blank(1000, true), reference), options=OPTIONS)
    assert alignment.method == "pattern"
    middle = np.array([[500.0, 500.0]])
    np.testing.assert_allclose(
        alignment.wcs.all_pix2world(middle, 0), true.all_pix2world(middle + (30, 20), 0), atol=1e-4
    )


def test_use_wcs_can_be_switched_off(rng, blank):
    sky = Sky(rng, 200, 1000)
    stars, reference = sky.pair()
    off = OPTIONS.model_copy(update={"use_wcs": False})
    alignment = align(blank(1000, make_wcs()), stars, template_of(blank(1000, make_wcs()), reference), options=off)
    assert alignment.method == "pattern"


def test_limits_of_the_unit_are_kept(rng, blank):
    sky = Sky(rng, 200, 1000)
    stars, reference = sky.pair()
    with pytest.raises(AlignmentFailed, match="5000 matched stars needed") as caught:
        align(
            blank(1000),
            stars,
            template_of(blank(1000), reference),
            options=OPTIONS.model_copy(update={"min_stars": 5000}),
        )
    assert caught.value.facts["matched"] > 100
    strict = OPTIONS.model_copy(update={"max_residual": 0.01})
    with pytest.raises(AlignmentFailed, match="at most"):
        align(blank(1000), stars, template_of(blank(1000), reference), options=strict)


def test_too_few_stars_to_match(rng, blank):
    sky = Sky(rng, 200, 1000)
    stars, reference = sky.pair()
    for few in (0, 1, 2, 3):
        with pytest.raises(AlignmentFailed):
            align(blank(1000), stars[:few], template_of(blank(1000), reference), options=OPTIONS)


def test_no_extrapolation_beyond_the_stars(rng, blank):
    """Stars in one corner only: the rest of the frame follows the linear part, it does not run away."""
    sky = Sky(rng, 400, 1000, shift=(4.0, 2.0))
    stars, reference = sky.pair()
    corner = stars[(stars["x"] < 450) & (stars["y"] < 450)]
    alignment = align(
        blank(1000), corner, template_of(blank(1000), reference), options=OPTIONS.model_copy(update={"order": 5})
    )
    x, y = alignment.to_template(999.0, 999.0)
    assert np.hypot(x - 1003.0, y - 1001.0) < 1.0


def test_masked_stars_do_not_lead_astray(rng, blank):
    sky = Sky(rng, 200, 1000)
    stars, reference = sky.pair()
    blend = stars[:60].copy()
    stars["flag"][:60] = Mask.DEFECT.value
    stars["x"][:60] += rng.uniform(-2, 2, len(blend))
    alignment = align(blank(1000), stars, template_of(blank(1000), reference), options=OPTIONS)
    assert alignment.residual < 0.15


def test_images_to_a_twentieth_of_a_pixel(rng, make_frame, star_list):
    """From pixels to mapping: two noisy images of different seeing, turned and shifted."""
    shape = (500, 500)
    x, y, flux = star_list(150, shape, faint=4.0)
    c = np.array([250.0, 250.0])
    turned = (np.column_stack((x, y)) - c) @ rotation(0.02).T + c + (7.3, -4.6)
    frame = make_frame(x, y, flux, shape)
    reference = make_frame(*turned.T, flux * 1.3, shape, sigma=1.9)
    alignment = align(frame, find_stars(frame), template_of(reference, find_stars(reference)), options=OPTIONS)
    assert alignment.residual < 0.1
    assert alignment.matched > 80
    grid = rng.uniform(0, 499, (200, 2))
    found = np.column_stack(alignment.to_template(*grid.T))
    assert np.hypot(*(found - ((grid - c) @ rotation(0.02).T + c + (7.3, -4.6))).T).max() < 0.05
    assert pickle.loads(pickle.dumps(alignment)).residual == alignment.residual
