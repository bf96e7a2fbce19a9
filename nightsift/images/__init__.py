"""Images of one exposure: calibration, background, stars, alignment, artefacts, extraction and photometry."""
