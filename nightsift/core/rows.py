"""Rows of tables as they travel through code as plain dictionaries, typed like the schemas that they mirror.

Columns grow by stages, so none is required; ``None`` stands where a schema allows null.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict


class LedgerRow(TypedDict, total=False):
    """A row of the ledger of exposures (`nightsift.core.tables.LEDGER`)."""

    exposure_id: str
    unit: str
    night: str
    state: str
    reason: str
    message: str
    facts: str
    url: str
    checksum: str
    field: str | None
    band: str | None
    mjd: float | None
    exposure_s: float | None
    ra: float | None
    dec: float | None
    area: float | None
    seeing: float | None
    core_width: float | None
    ellipticity: float | None
    width_gradient: float | None
    sky: float | None
    sky_rms: float | None
    n_stars: int | None
    zero_point: float | None
    aperture_correction: float | None
    limiting_mag: float | None
    align_method: str | None
    align_matched: int | None
    align_residual: float | None
    coverage: float | None
    template_id: str | None
    method: str | None
    method_choice: str | None
    convolved: str | None
    kernel_sum: float | None
    star_residual: float | None
    verdict: str | None
    verdict_reasons: str | None
    n_candidates: int | None
    n_unflagged: int | None
    n_accepted: int | None
    seconds: float
    stage_seconds: str
    provenance: str
    scoring: str | None
    version: str
    recorded_at: datetime


class ReducedRow(LedgerRow, total=False):
    """A ledger row as a run returns it, with what has been done for it now: the ledger itself has no such columns."""

    skipped: bool
    rescored: bool


class CandidateRow(TypedDict, total=False):
    """A row of a table of candidates (`nightsift.core.tables.CANDIDATES`)."""

    candidate_id: str
    exposure_id: str
    unit: str
    night: str
    field: str
    band: str
    mjd: float
    x: float
    y: float
    x_file: float | None
    y_file: float | None
    ra: float | None
    dec: float | None
    sign: int
    snr: float
    n_pixels: int
    elongation: float
    fwhm: float | None
    flux: float
    flux_err: float
    flux_aperture: float
    flux_aperture_err: float
    chi2: float | None
    mag: float | None
    mag_err: float | None
    dipole: float
    masked_fraction: float
    flags: int
    template_id: str
    stamp_index: int
    score: float | None
    score_std: float | None
    confidence: float | None
    model_id: str | None


class MonitoringRow(TypedDict, total=False):
    """A row of the monitoring of nights (`nightsift.core.monitoring_tables.MONITORING`)."""

    unit: str
    night: str
    channel: str
    state: str
    message: str
    value: float | None
    reference_mean: float | None
    reference_std: float | None
    departure: float | None
    window: int | None
    p_value: float | None
    q_value: float | None
    exposures: int
    candidates: int
    reference_nights: int
    reference_id: str
    model_id: str
    tables: str | None
    scored_by: str | None
    pipeline: str | None
    inputs: str | None
    version: str
    recorded_at: datetime
