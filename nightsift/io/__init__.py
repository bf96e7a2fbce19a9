"""The only doors to disk for images and tables.

`fits` and `headers` read images, `exposures` makes Frames of them; `sources` finds exposures and brings them here;
`atomic` writes whole files, `parquet` tables and stamps.
"""
