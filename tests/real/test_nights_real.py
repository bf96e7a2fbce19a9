"""Real frames run as nights, from FITS to scored candidates: a known transient, injected ones, variable stars."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from flows.night import night
from flows.templates import build_templates
from nightsift.archive import ledger
from nightsift.archive.candidates import read_candidates
from nightsift.archive.paths import Archive
from nightsift.archive.survey import load_survey
from nightsift.archive.templates import read_template
from nightsift.images.artefacts.artefacts import mask_artefacts
from nightsift.images.background.background import subtract_background
from nightsift.images.injection import inject_stars
from nightsift.images.stars.stars import find_stars
from nightsift.io.exposures import load_exposure
from nightsift.refcats.catalogues import read_positions
from nightsift.unit.units import load_unit
from subtraction.psf.fit import fit_psf

STEPS = (10.0, 15.0, 25.0, 50.0, 100.0)  # nominal signal-to-noise ratios of injected transients
EACH = 8


def survey_of(folder, unit, unit_file=""):
    """Survey of the frames linked under a folder."""
    if unit_file:
        (folder / "units").mkdir()
        (folder / "units" / f"{unit}.toml").write_text(unit_file)
    (folder / "nightsift.toml").write_text(
        f'name = "{unit}"\narchive = "archive"\nunits = "{"units" if unit_file else ""}"\n'
        f'[runner]\nkind = "in-process"\n[[source]]\nunit = "{unit}"\nframes = "night"\ntemplates = "templates"\n'
    )
    return load_survey(folder / "nightsift.toml")


def link(files, folder):
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file)


def run(survey):
    """Build the templates and run the night; ledger rows and candidates."""
    built = build_templates(survey, track=False)
    assert built.exit_code == 0, [row.message for row in built.rows]
    summary = night(survey, track=False)
    archive = Archive(survey.archive)
    return summary, ledger.read(archive).to_pylist(), read_candidates(archive).to_pylist()


def near(candidates, x, y, radius=2.0):
    return [one for one in candidates if np.hypot(one["x"] - x, one["y"] - y) < radius]


def test_the_transient_of_decam_comes_first(data_dir, tmp_path):
    frames = data_dir / "images/decam_sfft"
    link(frames.glob("DEC-OBS18?.mini.fits.gz"), tmp_path / "templates")
    link(frames.glob("DEC-OBS04?.mini.fits.gz"), tmp_path / "night")
    summary, rows, candidates = run(survey_of(tmp_path, "decam"))
    assert summary.exit_code == 0
    assert len(rows) == 5
    offsets = [
        3600 * np.hypot((one["ra"] - 318.10822) * np.cos(np.radians(66.016)), one["dec"] + 66.01571)
        for one in candidates
    ]
    found = [one for one, offset in zip(candidates, offsets, strict=True) if offset < 1.0]
    assert {one["exposure_id"] for one in found} == {row["exposure_id"] for row in rows}
    assert max(one["snr"] for one in found) > 12
    assert np.median([one["snr"] for one in found]) > 8
    best = max(candidates, key=lambda one: one["score"])
    assert best in found
    assert all(one["score"] > 0.3 for one in found)


@pytest.fixture(scope="module")
def drifting_night(data_dir, tmp_path_factory):
    """MicroObservatory: templates of the first ten frames, the last ten as the night, one with injected stars."""
    folder = tmp_path_factory.mktemp("drifting")
    files = sorted((data_dir / "images/microobs_hatp32").glob("*.gz"))
    link(files[:10], folder / "templates")
    link(files[10:], folder / "night")
    target = folder / "night" / files[12].name
    target.unlink()
    injected = _inject_into_file(files[12], target)
    unit_file = (Path(load_unit("microobservatory").file)).read_text()
    catalogue = data_dir / "catalogs/vsx.parquet"
    survey = survey_of(folder, "microobservatory", f'{unit_file}\n[template]\ncatalogue = "{catalogue}"\n')
    return (*run(survey), injected, target.name, read_positions(catalogue), Archive(survey.archive))


def _inject_into_file(source: Path, target: Path):
    """Copy a raw frame with stars added to it; (x, y, nominal S/N) on the trimmed frame."""
    unit = load_unit("microobservatory")
    frame = load_exposure(source, unit)
    prepared = subtract_background(mask_artefacts(frame, unit), unit.background.mesh)
    stars = find_stars(prepared)
    psf = fit_psf(prepared, stars)
    rng = np.random.default_rng(7)
    ny, nx = frame.shape
    places = []
    while len(places) < EACH * len(STEPS):
        x, y = rng.uniform((70, 20), (nx - 90, ny - 60))
        clear = np.hypot(stars["x"] - x, stars["y"] - y).min() > 6
        apart = all(np.hypot(x - a, y - b) > 15 for a, b in places)
        good = prepared.mask[int(y) - 4 : int(y) + 5, int(x) - 4 : int(x) + 5].max() == 0
        if clear and apart and good:
            places.append((x, y))
    x, y = np.array(places).T
    snr = np.tile(STEPS, EACH)
    core = psf.at(nx / 2, ny / 2)
    sigma = np.sqrt(np.median(prepared.variance) / np.sum(core**2))
    changed = inject_stars(frame, x, y, snr * sigma, psf, rng).data - frame.data
    with fits.open(source, ignore_missing_simple=True) as hdus:
        hdus.verify("silentfix")
        raw = hdus[0].data.astype(np.float64)
        raw[8 : 8 + ny, 2 : 2 + nx] += changed
        header = hdus[0].header.copy()
        fits.PrimaryHDU(np.rint(raw).astype(np.int16), header).writeto(target, output_verify="silentfix")
    return x, y, snr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
def test_twenty_frames_without_wcs_run_as_a_night(drifting_night):
    rows = drifting_night[1]
    assert len(rows) == 10
    assert all(row["state"] == "done" or row["reason"] for row in rows)
    done = [row for row in rows if row["state"] == "done"]
    assert len(done) >= 8
    assert np.median([row["align_residual"] for row in done]) < 0.3
    assert all(row["align_method"] == "pattern" for row in done)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
def test_injected_transients_of_five_steps_are_recovered(drifting_night):
    _, rows, candidates, (x, y, snr), name, _, _ = drifting_night
    exposure = next(row["exposure_id"] for row in rows if row["url"].endswith(name))
    mine = [one for one in candidates if one["exposure_id"] == exposure and one["sign"] > 0]
    found = np.array([bool(near(mine, a, b)) for a, b in zip(x, y, strict=True)])
    fraction = {step: found[snr == step].mean() for step in STEPS}
    assert fraction[100.0] >= 0.8, fraction
    assert fraction[50.0] >= 0.8, fraction
    assert fraction[25.0] >= 0.6, fraction
    bright = [max(near(mine, a, b), key=lambda one: one["snr"]) for a, b, q in zip(x, y, snr, strict=True)
              if q >= 50 and near(mine, a, b)]  # fmt: skip
    assert np.median([one["score"] for one in bright]) > 0.3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")
def test_sky_positions_come_from_a_list_of_variable_stars(drifting_night):
    """The host star of HAT-P-32 b lies where the solved template puts it, and the variables lie on stars."""
    _, _, candidates, _, _, (ra, dec), archive = drifting_night
    assert all(one["ra"] is not None for one in candidates)
    template = read_template(next(archive.root.glob("templates/**/*.fits")))
    stars, wcs = template.stars, template.frame.wcs
    x, y = wcs.all_world2pix(31.0427, 46.6878, 0)
    distance = np.hypot(stars["x"] - x, stars["y"] - y)
    assert distance.min() < 0.5
    assert distance.argmin() < 150
    x, y = wcs.all_world2pix(ra[near_field(ra, dec)], dec[near_field(ra, dec)], 0)
    inside = (x > 5) & (x < template.frame.shape[1] - 5) & (y > 5) & (y < template.frame.shape[0] - 5)
    matched = [np.hypot(stars["x"] - a, stars["y"] - b).min() < 1.0 for a, b in zip(x[inside], y[inside], strict=True)]
    assert sum(matched) >= 10


def near_field(ra, dec):
    return (np.abs(ra - 31.3) < 1.0) & (np.abs(dec - 46.77) < 0.7)


def test_a_second_run_adds_what_is_new_and_repeats_nothing(data_dir, tmp_path):
    frames = data_dir / "images/decam_sfft"
    link(frames.glob("DEC-OBS18?.mini.fits.gz"), tmp_path / "templates")
    link([frames / "DEC-OBS04b.mini.fits.gz"], tmp_path / "night")
    survey = survey_of(tmp_path, "decam")
    _, first, _ = run(survey)
    shutil.rmtree(tmp_path / "night")
    link([frames / "DEC-OBS04b.mini.fits.gz", frames / "DEC-OBS04c.mini.fits.gz"], tmp_path / "night")
    summary, second, candidates = run(survey)
    assert (len(first), len(second), summary.skipped) == (1, 2, 1)
    assert len({one["candidate_id"] for one in candidates}) == len(candidates)
