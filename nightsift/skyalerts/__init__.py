"""Sky alerts: from a notice to fields, exposures and ranked candidates."""
