"""What fades is as real as what brightens: light put into the template, and stars that vary both ways."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial import cKDTree

from models.synthesis.placement import FADED, INJECTED, VARIED, PlacementOptions
from models.synthesis.synthetic import add_transients, point_source_noise
from models.synthesis.template_light import as_built, brighten_template, effective_gain
from models.training.example_rows import rows_of
from models.training.labels import REAL, LabelOptions, label
from nightsift.context.galaxies import Galaxies
from nightsift.context.template_sources import TemplateSources
from nightsift.core.frames import Frame, Meta, Pair
from nightsift.core.psf import Psf
from nightsift.core.tables import TRUTH
from nightsift.images.detection.extract import extract
from nightsift.images.injection import inject_stars
from nightsift.images.photometry.difference_photometry import ZeroPoint
from nightsift.unit.units import Unit, load_unit
from subtraction.api.pairs import subtract_pair

NOWHERE = ["ra", "dec"]  # NaN without coordinates
SIDE, GAIN, DEPTH, SCALE = 500, 2.0, 6.0, 0.8
ZERO = ZeroPoint(25.0, 0.01, 50, 0.02)
OPTIONS = PlacementOptions(injected=120.0, transplanted=0.0, varied=60.0, min_snr=20.0, max_snr=60.0)


def gaussian(fwhm: float) -> Psf:
    across = np.arange(-12, 13)
    image = np.exp(-0.5 * (across[:, None] ** 2 + across**2) / (fwhm / 2.355) ** 2)
    return Psf((image / image.sum())[None].astype(np.float32), 0, (SIDE, SIDE), fwhm)


@pytest.fixture(scope="module")
def stars() -> TemplateSources:
    """Stars on a jittered grid, as the list of a template tells them."""
    rng = np.random.default_rng(3)
    x, y = (np.mgrid[25:SIDE:25, 25:SIDE:25].reshape(2, -1) + rng.uniform(-3, 3, (2, 361))).astype(np.float64)
    flux = 10 ** rng.uniform(3.3, 4.8, len(x))
    n = len(x)
    return TemplateSources(
        np.array([f"s{k}" for k in range(n)]), x, y, flux, np.full(n, 20.0), np.full(n, 100.0), np.zeros(n),
        np.ones(n), np.ones(n), np.zeros(n), np.ones(n, dtype=bool), 3.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pair(stars: TemplateSources) -> Pair:
    """A deep template with a PSF of its own; fluxes of the science frame are 0.8 times as large."""
    rng = np.random.default_rng(4)
    meta = Meta("u", "f", "r", "2026-11-20", "x1", 61000.0, 60.0, GAIN, 5.0, 60000.0, 1.0, path="x1.fits")
    frames = []
    for fwhm, depth, scale in ((3.2, 1.0, SCALE), (2.8, DEPTH, 1.0)):
        gain, sky = GAIN * depth, np.float32(400.0)
        variance = np.full((SIDE, SIDE), sky / gain, np.float32)
        data = rng.normal(0.0, np.sqrt(variance)).astype(np.float32)
        bare = Frame(data, variance, np.zeros((SIDE, SIDE), np.uint16), dataclasses.replace(meta, gain=gain), sky=400.0)
        psf = gaussian(fwhm)
        frames.append(inject_stars(bare, stars.x, stars.y, stars.flux * scale, psf, rng).replace(meta=meta, psf=psf))
    return Pair(frames[0], frames[1])


def galaxies() -> Galaxies:
    rng = np.random.default_rng(5)
    n = 60
    x, y = rng.uniform(20, SIDE - 20, (2, n))
    return Galaxies(
        np.array([f"g{k}" for k in range(n)]), x, y, np.full(n, 2.0), np.full(n, 0.7), np.zeros(n), np.full(n, 18.0)
    )


def added(
    pair: Pair, stars: TemplateSources | None, options: PlacementOptions = OPTIONS, reduction: str = "standard"
) -> tuple[Pair, pa.Table, dict[str, int]]:
    noise, known = point_source_noise(pair), TRUTH.empty_table()
    return add_transients(
        pair, noise, galaxies(), known=known, zero=ZERO, reduction=reduction, seed=1, options=options, stars=stars
    )


@pytest.fixture(scope="module")
def unit() -> Unit:
    return load_unit("panoptes")


def kinds(truth: pa.Table) -> np.ndarray:
    return np.asarray(truth["kind"].to_pylist(), dtype=object)


def test_the_gain_of_a_template_is_that_of_all_its_frames(pair: Pair) -> None:
    assert effective_gain(pair.template) == pytest.approx(GAIN * DEPTH, rel=0.1)
    assert effective_gain(pair.science) == pytest.approx(GAIN, rel=0.1)
    dark = pair.template.replace(data=np.zeros_like(pair.template.data))
    assert effective_gain(dark) == GAIN, "nothing tells it"


def test_light_in_a_template_has_the_noise_of_its_variance(pair: Pair) -> None:
    at, flux = np.array([250.0]), np.array([30000.0])
    gained = [
        float(
            (
                brighten_template(pair.template, at, at, flux=flux, rng=np.random.default_rng(k)).data
                - pair.template.data
            ).sum()
        )
        for k in range(60)
    ]
    lit = brighten_template(pair.template, at, at, flux=flux, rng=np.random.default_rng(0))
    expected = float((lit.variance - pair.template.variance).sum(dtype=np.float64))
    assert expected == pytest.approx(30000.0 / (GAIN * DEPTH), rel=0.1)
    assert np.var(gained) == pytest.approx(expected, rel=0.6)
    assert np.mean(gained) == pytest.approx(30000.0, rel=0.005)
    assert lit.meta == pair.template.meta


def test_with_nothing_fading_everything_stays_as_it_was(pair: Pair, stars: TemplateSources) -> None:
    """The template is not touched, and the science frame is the same to the bit with and without what makes it fade."""
    none = dataclasses.replace(OPTIONS, fading=0.0, varied=0.0)
    bare = Pair(pair.science, pair.template.replace(psf=None))
    with_psf, truth, asked = added(pair, stars, none)
    without, plain, _ = added(bare, None, none)
    assert with_psf.template is pair.template
    assert asked[FADED] == asked[VARIED] == 0
    np.testing.assert_array_equal(with_psf.science.data, without.science.data)
    np.testing.assert_array_equal(with_psf.science.mask, without.science.mask)
    assert truth.drop(NOWHERE).equals(plain.drop(NOWHERE))
    everything, brighter, _ = added(bare, stars)
    np.testing.assert_array_equal(everything.science.data, without.science.data)
    assert brighter.drop(NOWHERE).equals(plain.drop(NOWHERE)), "without a PSF of the template nothing fades"


def test_places_hosts_and_brightness_do_not_depend_on_what_fades(pair: Pair, stars: TemplateSources) -> None:
    columns = ("x", "y", "mag", "host_id", "host_offset")

    def rows(part: float) -> set[tuple[object, ...]]:
        _, truth, _ = added(pair, stars, dataclasses.replace(OPTIONS, fading=part, varied=0.0))
        return set(zip(*(truth[name].to_pylist() for name in columns), strict=True))

    assert rows(0.0) == rows(0.25) == rows(1.0)


def test_sources_keep_apart_and_have_names_of_their_own(pair: Pair, stars: TemplateSources) -> None:
    _, truth, asked = added(pair, stars)
    assert min(asked[INJECTED], asked[FADED], asked[VARIED]) > 2
    places = np.column_stack([truth["x"].to_numpy(), truth["y"].to_numpy()])
    assert len(cKDTree(places).query_pairs(OPTIONS.separation * 3.2 - 1e-6)) == 0
    assert len(set(truth["object_id"].to_pylist())) == len(truth) == sum(asked.values())


def test_each_exposure_draws_its_own(pair: Pair, stars: TemplateSources) -> None:
    one, same, other = (added(pair, stars, reduction=name) for name in ("standard", "standard", "careless"))
    np.testing.assert_array_equal(one[0].template.data, same[0].template.data)
    assert one[1].drop(NOWHERE).equals(same[1].drop(NOWHERE))
    for kind in (FADED, VARIED):
        first, second = (truth.filter(pa.array(kinds(truth) == kind))["x"].to_numpy() for truth in (one[1], other[1]))
        assert not np.isin(first, second).any()


def test_stars_vary_both_ways_by_the_part_asked_for(pair: Pair, stars: TemplateSources) -> None:
    _, truth, _ = added(pair, stars, dataclasses.replace(OPTIONS, varied=400.0, min_snr=3.5, max_snr=500.0))
    varied = truth.filter(pa.array(kinds(truth) == VARIED))
    now, before = varied["flux"].to_numpy(), varied["reference_flux"].to_numpy()
    part = now / before - 1.0
    assert len(part) > 8
    assert (part > 0).any()
    assert (part < 0).any()
    assert np.abs(part).min() > 0.099
    assert np.abs(part).max() < 0.601
    steady = np.minimum(now, before)
    _, row = cKDTree(np.column_stack([stars.x, stars.y])).query(
        np.column_stack([varied["x"].to_numpy(), varied["y"].to_numpy()])
    )
    np.testing.assert_allclose(steady, SCALE * stars.flux[row], rtol=0.08)


def test_what_fades_is_found_with_its_sign_and_flux_and_labelled_real(
    pair: Pair, stars: TemplateSources, unit: Unit
) -> None:
    lit, truth, asked = added(pair, stars, dataclasses.replace(OPTIONS, injected=160.0, min_snr=30.0))
    built, sources = as_built(lit, truth, stars)
    assert built.template.psf is None
    assert len(stars) < len(sources) <= len(stars) + asked[FADED]
    difference = subtract_pair(built, unit.subtraction.method, unit.subtraction.options)
    found = extract(difference, built, unit, zero_point=ZERO, template_id="t")
    labels, matches = label(found, {"x1": "x1.fits"}, truth, LabelOptions())
    real = labels == REAL
    sign, flux, error = (np.asarray(found[name], dtype=float)[real] for name in ("sign", "flux", "flux_err"))
    kind = kinds(truth)[matches[real]]
    change = (truth["flux"].to_numpy() - truth["reference_flux"].to_numpy())[matches[real]]
    faded = kind == FADED
    assert faded.sum() >= 0.9 * asked[FADED] > 4
    assert (kind == VARIED).sum() >= 0.7 * asked[VARIED]
    assert (sign[faded] == -1).all()
    assert (sign[kind == INJECTED] == 1).all()
    pull = (flux - change) / np.hypot(error, 0.03 * np.abs(change))
    assert np.abs(np.median(pull[faded])) < 1.5
    assert (np.abs(pull[faded]) < 5.0).all()
    rows = rows_of(found, labels, matches, truth=truth, survey="s", reduction="standard")
    table = {name: np.asarray(rows[name].to_pylist(), dtype=object)[real] for name in ("source", "class", "true_mag")}
    assert set(table["source"]) == {"injected"}
    assert set(table["class"][faded]) == {"transient"}
    assert set(table["class"][kind == VARIED]) == {"variable"}
    np.testing.assert_allclose(table["true_mag"].astype(float), 25.0 - 2.5 * np.log10(np.abs(change)), atol=1e-4)
