"""How products lie on disk: paths, ledger, claims, versions."""
