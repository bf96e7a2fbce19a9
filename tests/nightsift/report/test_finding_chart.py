"""Finding charts show north up and east to the left, the place in the middle, and nothing where there is nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from astropy.wcs import WCS
from PIL import Image

from nightsift.core.flags import Mask
from nightsift.report.finding_chart import EMPTY, GAP, MARK, angle, finding_chart, write_charts

PLACE = (40.0, -20.0)
TOP = 43  # of the lines of text above a chart of 480 pixels


@pytest.fixture
def frame(make_frame):
    """A frame turned by 200 degrees with a star 40 arcsec north, and a fainter one 40 arcsec east, of the place."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = PLACE
    wcs.wcs.crpix = [150.0, 150.0]
    cosine, sine = np.cos(np.radians(200.0)), np.sin(np.radians(200.0))
    wcs.wcs.cd = np.array([[-cosine, sine], [sine, cosine]]) / 3600
    wcs.wcs.set()
    north, east = (PLACE[0], PLACE[1] + 40 / 3600), (PLACE[0] + 40 / 3600 / np.cos(np.radians(20.0)), PLACE[1])
    xy = wcs.all_world2pix([north, east], 0)
    return make_frame(xy[:, 0], xy[:, 1], np.array([1e6, 3e5]), (300, 300), sigma=1.5, wcs=wcs)


def darkest(chart, rows, columns):
    return float(chart[rows, columns, 0].mean())


def test_north_is_up_and_east_to_the_left(frame):
    chart = finding_chart(frame, PLACE, 120.0, title="SN", caption="made-up r")
    assert chart.dtype == np.uint8
    assert chart.shape[1] == 480
    middle, step = (TOP + 240, 240), 160  # 40 arcsec at 4 pixels each
    star = slice(-6, 7)
    places = {"north": (-step, 0), "east": (0, -step), "south": (step, 0), "west": (0, step)}
    light = {
        name: darkest(
            chart,
            slice(middle[0] + dy + star.start, middle[0] + dy + star.stop),
            slice(middle[1] + dx + star.start, middle[1] + dx + star.stop),
        )
        for name, (dy, dx) in places.items()
    }
    assert max(light["north"], light["east"]) < 80 < 150 < min(light["south"], light["west"])
    red = (chart == np.array(MARK)).all(axis=2)
    y, x = np.nonzero(red)
    assert (y.mean(), x.mean()) == pytest.approx(middle, abs=1.0)
    assert not red[middle[0] - 8 : middle[0] + 9, middle[1] - 8 : middle[1] + 9].any(), "the place itself is free"


@pytest.mark.parametrize(("size", "pixels"), [(20.0, 300), (3000.0, 300), (120.0, 800)])
def test_any_size(size, pixels, frame):
    chart = finding_chart(frame, PLACE, size, pixels=pixels)
    assert chart.shape[1] == pixels
    empty = (chart == np.array(EMPTY)).all(axis=2).mean()
    assert (empty > 0.5) == (size > 1000.0)


def test_pixels_without_light_are_empty_and_saturated_stars_are_not(frame):
    mask = np.zeros(frame.shape, np.uint16)
    mask[130:150, 130:150] = Mask.DEFECT.value
    mask[160:170, 160:170] = Mask.SATURATED.value
    chart = finding_chart(frame.replace(mask=mask), PLACE, 120.0)
    empty = int((chart == np.array(EMPTY)).all(axis=2).sum())
    assert empty == pytest.approx(400 * 16, rel=0.15)


def test_charts_side_by_side(frame, tmp_path):
    charts = [finding_chart(frame, PLACE, 60.0, pixels=200)] * 2
    with Image.open(write_charts(tmp_path / "chart.png", charts)) as image:
        assert image.size == (400 + GAP, charts[0].shape[0])


def test_what_cannot_be_drawn(frame):
    with pytest.raises(ValueError, match="coordinates"):
        finding_chart(dataclasses.replace(frame, wcs=None), PLACE, 60.0)
    with pytest.raises(ValueError, match="positive"):
        finding_chart(frame, PLACE, float("nan"))


@pytest.mark.parametrize(("arcsec", "text"), [(0.5, "0.5″"), (30, "30″"), (90, "1.5′"), (300, "5′"), (7200, "2°")])
def test_angles(arcsec, text):
    assert angle(arcsec) == text
