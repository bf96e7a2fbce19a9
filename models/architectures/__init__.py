"""Architectures of networks; the file is the registration (see `models.contract`)."""
