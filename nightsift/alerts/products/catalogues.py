"""The catalogues that a survey names for its alerts, read once a process."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nightsift.alerts.options import AlertOptions
from nightsift.alerts.products.hosts import load_hosts
from nightsift.alerts.products.known import Movers, load_known
from nightsift.alerts.products.rank import Catalogues
from nightsift.context.orbits import read_orbits
from nightsift.site.site import Site


def open_catalogues(options: AlertOptions, sites: Mapping[str, Site]) -> Catalogues:
    """Read the catalogues that a survey names.

    Parameters
    ----------
    options : AlertOptions
        Table ``[alert]``.
    sites : mapping of str to Site
        Where the units stand.

    Returns
    -------
    Catalogues
        The catalogues; what is not named is not compared with.

    Raises
    ------
    BadTable
        If one cannot be read.
    """
    hosts = load_hosts(options.galaxies) if options.galaxies else None
    movers = Movers(read_orbits(os.path.expandvars(options.orbits)), sites) if options.orbits else None
    return Catalogues(hosts, load_known(options.stars, options.nuclei), movers)
