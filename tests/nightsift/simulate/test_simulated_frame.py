"""A simulated exposure agrees with its own truth."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
from astropy.wcs import WCS
from numpy.testing import assert_array_equal

from nightsift.simulate.detector import expose, make_detector, saturation_level
from nightsift.simulate.frame import simulate_frame
from nightsift.simulate.options import ArtefactOptions, SimulationOptions, SkyOptions, TransientOptions
from nightsift.simulate.plan import plan_exposures, plan_fields
from nightsift.simulate.unit_options import DetectorOptions, UnitOptions, random_unit

QUIET = ArtefactOptions(cosmic_rays=0, streak_probability=0, cloud_probability=0, gradient=0, moon=0, ghost_flux=0)
CLEAN = DetectorOptions(hot_pixels=0, dead_pixels=0, hot_columns=0, flat_error=0, vignetting=0)
EMPTY = SkyOptions(star_density=0.0, galaxy_density=0.0)


def quiet(**changes: object) -> SimulationOptions:
    """A survey of empty sky with a perfect detector, on which only what is asked for stands."""
    unit = UnitOptions(name="q-1", shape=(400, 420), detector=CLEAN, rotation=30.0)
    base = SimulationOptions("quiet", 5, (unit,), fields=1, visits=2, sky=EMPTY, artefacts=QUIET)
    return dataclasses.replace(base, **changes)


def test_same_seed_same_frame_whatever_came_before() -> None:
    options = SimulationOptions.preset("tiny", seed=4)
    first = simulate_frame(options, visit=1)
    simulate_frame(options, visit=0)
    simulate_frame(options, role="template")
    again = simulate_frame(options, visit=1)
    assert_array_equal(first.data, again.data)
    assert first.truth.equals(again.truth)
    other = simulate_frame(dataclasses.replace(options, seed=5), visit=1)
    assert (first.data != other.data).mean() > 0.5


def test_more_units_do_not_change_the_first() -> None:
    options = SimulationOptions.preset("tiny", seed=4)
    more = dataclasses.replace(options, units=(random_unit(1, shape=(64, 64)), *options.units), fields=2)
    assert_array_equal(simulate_frame(options).data, simulate_frame(more, unit=1).data)


def test_fluxes_are_those_of_the_truth() -> None:
    many = TransientOptions(
        supernova=0, nuclear=0, variable=0, hostless=25, asteroid=0, min_snr=150, max_snr=400, separation=12
    )
    frame = simulate_frame(quiet(transients=many))
    truth = frame.truth
    assert truth.num_rows > 10
    y, x = np.indices(frame.data.shape)
    data = frame.data.astype(float) - frame.sky
    ratios = []
    for row in truth.to_pylist():
        if min(row["x"], row["y"]) < 25 or row["x"] > 394 or row["y"] > 374:
            continue
        aperture = np.hypot(x - row["x"], y - row["y"]) < 4.5 * frame.psf.fwhm
        ratios.append(data[aperture].sum() / row["flux"])
    assert len(ratios) > 8
    assert np.median(ratios) == pytest.approx(1.0, abs=0.01)
    magnitude = frame.zero_point - 2.5 * np.log10(truth["flux"].to_numpy())
    assert magnitude == pytest.approx(truth["mag"].to_numpy(), abs=1e-3)


def test_noise_is_that_of_photons_and_readout() -> None:
    frame = simulate_frame(quiet(transients=TransientOptions(0, 0, 0, 0, 0)))
    detector = CLEAN
    electrons = frame.sky * detector.gain
    assert frame.data.mean() == pytest.approx(frame.sky, rel=2e-3)
    expected = np.sqrt(electrons + detector.read_noise**2) / detector.gain
    assert frame.data.std() == pytest.approx(expected, rel=0.01)


def test_expected_snr_is_what_weighted_photometry_reaches() -> None:
    options = quiet(transients=TransientOptions(0, 0, 0, 0, 0))
    blank = simulate_frame(options)
    sigma_adu = blank.data.std() * np.sqrt(blank.psf.noise_pixels)
    limit = blank.zero_point - 2.5 * np.log10(5.0 * sigma_adu)
    assert blank.limiting_mag == pytest.approx(limit, abs=0.02)
    shining = simulate_frame(dataclasses.replace(options, transients=TransientOptions(0, 30, 0, 0, 0)))
    truth = shining.truth
    assert truth["snr"].to_numpy() == pytest.approx(truth["flux"].to_numpy() / sigma_adu, rel=0.03)


@pytest.mark.parametrize("parity", [1, -1])
def test_positions_follow_the_true_wcs(parity: int) -> None:
    options = quiet(transients=TransientOptions(0, 40, 0, 0, 0))
    unit = dataclasses.replace(options.units[0], wcs_error=0.0, distortion=8.0, parity=parity)
    frame = simulate_frame(dataclasses.replace(options, units=(unit,)))
    ra, dec = frame.truth["ra"].to_numpy(), frame.truth["dec"].to_numpy()
    x, y = WCS(frame.header, fix=False).all_world2pix(ra, dec, 0)
    assert x == pytest.approx(frame.truth["x"].to_numpy(), abs=0.02)
    assert y == pytest.approx(frame.truth["y"].to_numpy(), abs=0.02)
    back = frame.wcs.to_world(frame.truth["x"].to_numpy(), frame.truth["y"].to_numpy())
    assert back[0] == pytest.approx(ra, abs=1e-7)
    assert back[1] == pytest.approx(dec, abs=1e-7)


def test_header_wcs_is_a_little_wrong() -> None:
    frame = simulate_frame(SimulationOptions.preset("tiny", seed=4))
    x, y = WCS(frame.header, fix=False).all_world2pix(frame.truth["ra"].to_numpy(), frame.truth["dec"].to_numpy(), 0)
    off = np.hypot(x - frame.truth["x"].to_numpy(), y - frame.truth["y"].to_numpy())
    assert 0.1 < np.median(off) < 12.0


def test_unit_without_wcs_writes_none() -> None:
    options = quiet()
    unit = dataclasses.replace(options.units[0], header_wcs="none")
    header = simulate_frame(dataclasses.replace(options, units=(unit,))).header
    assert "CRVAL1" not in header
    assert "CTYPE1" not in header
    assert isinstance(header["RA"], float)


def test_asteroids_move_and_transients_stay() -> None:
    options = quiet(transients=TransientOptions(0, 10, 0, 0, 12))
    first, second = (
        {row["object_id"]: row for row in simulate_frame(options, visit=v).truth.to_pylist()} for v in (0, 1)
    )
    common = first.keys() & second.keys()
    assert {first[name]["kind"] for name in common} == {"hostless", "asteroid"}
    for name in common:
        a, b = first[name], second[name]
        shift = np.hypot((a["ra"] - b["ra"]) * np.cos(np.deg2rad(a["dec"])), a["dec"] - b["dec"]) * 3600
        minutes = (b["mjd"] - a["mjd"]) * 1440
        if a["kind"] == "asteroid":
            assert 0.14 < shift / minutes < 4.1
        else:
            assert shift < 1e-6


def test_only_variable_stars_shine_in_template_frames() -> None:
    options = SimulationOptions.preset("tiny", seed=9)
    kinds = set(simulate_frame(options, role="template").truth["kind"].to_pylist())
    assert kinds <= {"variable"}
    night = simulate_frame(options).truth
    fresh = [k != "variable" for k in night["kind"].to_pylist()]
    assert (night["reference_flux"].to_numpy()[fresh] == 0).all()


def test_offsets_from_hosts_are_true() -> None:
    options = SimulationOptions.preset("training", seed=2)
    from nightsift.simulate.field import make_sky

    unit = options.units[0]
    sky = make_sky(options, unit, plan_fields(options, unit)[0])
    objects, galaxies = sky.transients, sky.galaxies
    rows = np.flatnonzero(objects.host >= 0)
    host = objects.host[rows]
    east = (objects.ra[rows] - galaxies.ra[host]) * np.cos(np.deg2rad(galaxies.dec[host])) * 3600
    north = (objects.dec[rows] - galaxies.dec[host]) * 3600
    angle = np.deg2rad(galaxies.angle[host])
    along, across = east * np.sin(angle) + north * np.cos(angle), east * np.cos(angle) - north * np.sin(angle)
    offset = np.hypot(along, across / galaxies.axis_ratio[host]) / galaxies.radius[host]
    assert offset == pytest.approx(objects.offset[rows], abs=0.02)
    assert (objects.offset[rows][objects.kind[rows] == "nuclear"] == 0).all()
    supernovae = objects.offset[rows][objects.kind[rows] == "supernova"]
    assert np.quantile(supernovae, [0.1, 0.9]) == pytest.approx([0.3, 4.0], abs=0.6)


def test_saturated_star_bleeds_along_its_column() -> None:
    options = DetectorOptions(
        gain=1.0, full_well=50000.0, flat_error=0, vignetting=0, hot_pixels=0, dead_pixels=0, hot_columns=0
    )
    detector = make_detector(np.random.default_rng(1), (120, 60), options)
    light = np.full((120, 60), 100.0, dtype=np.float32)
    light[60, 30] = 1.05e6
    adu, saturated, bled = expose(np.random.default_rng(2), light.copy(), 10.0, detector=detector)
    rows, columns = np.nonzero(saturated)
    assert set(columns) == {30}
    assert 18 <= len(rows) <= 24
    assert bled.sum() >= len(rows) - 1
    # No charge is lost as long as the trail stays on the detector.
    assert adu[:, 30].sum() == pytest.approx(1.05e6 + 119 * 100, rel=0.02)
    cmos = dataclasses.replace(options, bleed=False)
    adu, saturated, bled = expose(
        np.random.default_rng(2), light, 10.0, detector=dataclasses.replace(detector, options=cmos)
    )
    assert saturated.sum() == 1
    assert not bled.any()
    assert adu.max() >= saturation_level(cmos)


def test_defects_stay_where_they_are() -> None:
    options = SimulationOptions.preset("tiny", seed=4)
    a, b = simulate_frame(options, visit=0), simulate_frame(options, visit=1)
    assert_array_equal(a.spoilt["defect"], b.spoilt["defect"])
    hot = a.spoilt["defect"]
    assert hot.sum() > 50
    both = (a.data[hot] > a.sky + 300) & (b.data[hot] > b.sky + 300)
    assert both.sum() > 5


def test_streak_and_cosmic_rays_are_there() -> None:
    loud = dataclasses.replace(QUIET, streak_probability=1.0, cosmic_rays=300.0)
    frame = simulate_frame(quiet(artefacts=loud, transients=TransientOptions(0, 0, 0, 0, 0)))
    noise = frame.data.std()
    streak, rays = frame.spoilt["streak"], frame.spoilt["cosmic_ray"]
    assert streak.sum() > 200
    assert (frame.data[streak].mean() - frame.sky) > 0.5 * noise
    assert 20 < rays.sum() < 5000
    assert np.median(frame.data[rays] - frame.sky) > 2 * noise


def test_clouds_dim_what_they_cover() -> None:
    loud = dataclasses.replace(QUIET, cloud_probability=1.0, cloud_extinction=1.5)
    bright = TransientOptions(0, 30, 0, 0, 0)
    frame = simulate_frame(quiet(artefacts=loud, transients=bright), role="night")
    assert frame.exposure.cloudy
    dimmed = frame.truth["flux"].to_numpy() / 10 ** (-0.4 * (frame.truth["mag"].to_numpy() - frame.zero_point))
    assert dimmed.std() > 0.01  # patchy
    clear = simulate_frame(quiet(transients=bright))
    assert frame.limiting_mag < clear.limiting_mag


def test_times_and_nights_fit() -> None:
    options = SimulationOptions.preset("demo", seed=1)
    for unit in options.units:
        for exposure in plan_exposures(options, unit, plan_fields(options, unit)[0]):
            local = exposure.mjd + unit.longitude / 360.0
            evening = np.datetime64(exposure.night) - np.datetime64("1858-11-17")
            assert 0.5 < local - evening.astype(int) < 1.5


@pytest.mark.parametrize("index", range(4))
def test_random_units_are_unlike_but_sane(index: int) -> None:
    unit = random_unit(3, index, shape=(256, 256))
    options = dataclasses.replace(SimulationOptions.preset("training", seed=3), units=(unit,), fields=1, visits=1)
    frame = simulate_frame(options)
    assert 1.4 < frame.psf.fwhm < 8
    assert (frame.data >= saturation_level(unit.detector)).mean() < 0.02
    assert 0.7 <= unit.pixel_scale <= 2.5
    assert frame.truth.num_rows > 3


def test_a_frame_is_made_fast() -> None:
    options = SimulationOptions.preset("demo", seed=1)
    simulate_frame(options)
    start = time.process_time()
    simulate_frame(options)
    assert time.process_time() - start < 2.0  # 0.2 s on an idle core; slower machines have their margin
