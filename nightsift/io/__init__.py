"""The only doors to disk.

`fits` (with `headers` and `wcs`) reads images, `exposures` makes Frames of them; `sources` finds exposures and brings
them here; `paths` knows the archive, `atomic` writes whole files, `parquet` tables and stamps; `templates` and
`differences` are images that are kept.
"""
