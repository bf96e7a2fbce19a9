"""The night at a site: its clock, its options, and what is told of it while it goes on."""
