"""Reference catalogues of stars, galaxies and known objects."""
