"""What every room builds on: the objects that travel, tables, flags, errors, provenance."""
