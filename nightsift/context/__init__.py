"""What is known of the sky around candidates: sources of the template, galaxies, minor planets, catalogues."""
