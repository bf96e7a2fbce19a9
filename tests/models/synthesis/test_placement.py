"""Where synthetic transients go; each known fault of an earlier factory has its test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from models.synthesis.placement import PlacementOptions, draw_hosts, nearest_with_phase, place, positions_beside
from nightsift.context.galaxies import Galaxies

SHAPE = (1500, 1500)


def galaxies(n: int, seed: int = 0, spread: float = 2.0) -> Galaxies:
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n)))
    grid = (np.mgrid[:side, :side].reshape(2, -1).T[:n] + 0.5) * SHAPE[0] / side
    return Galaxies(
        np.array([f"g{k}" for k in range(n)]), grid[:, 0], grid[:, 1], rng.uniform(0.6, 3.0, n),
        rng.uniform(0.2, 1.0, n), rng.uniform(-np.pi, np.pi, n), rng.normal(18.0, spread, n),
    )  # fmt: skip


NOISE = np.full(SHAPE, 20.0, dtype=np.float32)
NOTHING = np.empty((0, 2))


def draw(key: str = "x", hosts: Galaxies | None = None, taken: np.ndarray = NOTHING, **changes: float):
    options = PlacementOptions(**{"injected": 200.0, "transplanted": 100.0, **changes})
    return place(
        1,
        ("unit", key),
        SHAPE,
        noise=NOISE,
        fwhm=3.0,
        galaxies=galaxies(900) if hosts is None else hosts,
        taken=taken,
        options=options,
    )


def test_exposures_do_not_share_their_draws() -> None:
    """Fault: a generator reseeded for each image repeats its offsets."""
    one, same, other = draw("a"), draw("a"), draw("b")
    np.testing.assert_array_equal(one.offset, same.offset)
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.isin(other.offset[np.isfinite(other.offset)], one.offset).any()
    assert not np.isin(other.flux, one.flux).any()


def test_offsets_are_uniform_in_light_radii() -> None:
    hosts = galaxies(900)
    plans = [draw(str(k), hosts) for k in range(12)]
    offset = np.concatenate([one.offset[one.host >= 0] for one in plans])
    assert len(offset) > 2000
    assert offset.min() >= 0
    assert offset.max() <= 5.0
    assert kstest(offset / 5.0, "uniform").pvalue > 1e-3
    measured = np.concatenate([hosts.offsets(p.host[p.host >= 0], p.x[p.host >= 0], p.y[p.host >= 0]) for p in plans])
    np.testing.assert_allclose(measured, offset, atol=1e-9)


def test_offsets_stay_uniform_where_sources_keep_their_phase(rng: np.random.Generator) -> None:
    """Pixels of a minor planet cannot be moved by parts of a pixel, and most galaxies are a few pixels large."""
    n, hosts = 4000, galaxies(4000, spread=1.0)
    host, offset = np.arange(n), rng.uniform(0.0, 5.0, n)
    wished, phase = positions_beside(rng, hosts, host, offset=offset), rng.uniform(-0.5, 0.5, (2, n))
    x, y = nearest_with_phase(hosts, host, offset, at=wished, phase=phase, most=5.0)
    for got, want, own in zip((x, y), wished, phase, strict=True):
        assert np.abs(got - want).max() <= 1.5
        np.testing.assert_allclose(got - own, np.round(got - own), atol=1e-9)
    came = hosts.offsets(host, x, y)
    nearest = hosts.offsets(host, *(np.round(want - own) + own for want, own in zip(wished, phase, strict=True)))
    assert np.mean(nearest > 5.0) > 0.02
    assert np.mean(came > 5.0) < 0.001
    assert np.abs(came - offset).mean() < 0.5 * np.abs(nearest - offset).mean()


def test_what_changes_already_does_not_bend_the_offsets() -> None:
    """Dropping only the places near a known transient would favour large offsets."""
    hosts = galaxies(900)
    taken = np.column_stack([hosts.x[::3] + 1.0, hosts.y[::3]])
    plans = [draw(str(k), hosts, taken) for k in range(12)]
    offset = np.concatenate([one.offset[one.host >= 0] for one in plans])
    assert kstest(offset / 5.0, "uniform").pvalue > 1e-3
    assert not np.isin(np.concatenate([one.host for one in plans]), np.arange(0, 900, 3)).any()


def test_hosts_follow_the_stated_prior_and_are_not_the_brightest() -> None:
    """Fault: the host was always the brightest galaxy near."""
    hosts = galaxies(400, spread=1.0)
    rng = np.random.default_rng(3)
    counts = {}
    for power in (0.0, 0.5, 1.0):
        options = PlacementOptions(host_power=power)
        drawn = np.concatenate([draw_hosts(rng, hosts, 3, options=options) for _ in range(4000)])
        counts[power] = np.bincount(drawn, minlength=400)
    for power, count in counts.items():
        weight = 10 ** (-0.4 * power * hosts.mag)
        expected = 12000 * weight / weight.sum()
        order = np.argsort(hosts.mag)
        for group in np.array_split(order, 4):  # quarters by brightness; without replacement it is a little flatter
            assert count[group].sum() == pytest.approx(expected[group].sum(), rel=0.12, abs=60)
    assert counts[0.5][np.argmin(hosts.mag)] < 0.1 * counts[0.5].sum()


def test_no_host_twice_in_a_frame() -> None:
    host = draw(hosts=galaxies(150)).host
    host = host[host >= 0]
    assert len(host) > 100
    assert len(np.unique(host)) == len(host)


def test_magnitudes_reach_below_the_limit() -> None:
    """Fault: synthetics stopped 0.7 mag above the limit of the survey."""
    plan = draw(injected=3000.0, separation=0.0)
    snr = plan.flux / 20.0
    assert snr.min() < 4.0, "five is the limit"
    assert snr.max() > 150
    assert kstest(np.log(snr / 3.5) / np.log(200 / 3.5), "uniform").pvalue > 1e-3


def test_sources_keep_their_distance() -> None:
    from scipy.spatial import cKDTree

    taken = np.random.default_rng(0).uniform(0, 1500, (300, 2))
    plan = draw(taken=taken, hosts=galaxies(100))
    places = np.column_stack([plan.x, plan.y])
    assert len(cKDTree(places).query_pairs(11.9)) == 0
    assert cKDTree(taken).query(places)[0].min() >= 12.0


def test_nothing_is_put_where_nothing_is_seen() -> None:
    noise = NOISE.copy()
    noise[:, 700:] = np.nan
    plan = place(
        1, ("u",), SHAPE, noise=noise, fwhm=3.0, galaxies=galaxies(900), taken=NOTHING, options=PlacementOptions()
    )
    assert plan.x.max() < 699.5
    assert np.isfinite(plan.flux).all()


def test_without_galaxies_there_are_only_hostless_stars() -> None:
    plan = draw(hosts=galaxies(0))
    assert set(plan.source) == {"injected"}
    assert (plan.host == -1).all()
