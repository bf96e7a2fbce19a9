"""Schema of the table of ranked candidates."""

from __future__ import annotations

import pyarrow as pa

from nightsift.tables import Column, schema

_S, _I, _F, _D = pa.string(), pa.int32(), pa.float32(), pa.float64()
_O = "nightsift.alerts.products.objects"
_H = "nightsift.alerts.products.history"
_G = "nightsift.alerts.products.hosts"
_K = "nightsift.alerts.products.known"
_R = "nightsift.alerts.products.rank"

RANKED_COLUMNS = (
    Column("rank", _I, "", "1 for the candidate to look at first", _R),
    Column("probability", _D, "", "that it is the counterpart, among all candidates and none of them", _R),
    Column(
        "reasons", _S, "", "why it is ranked down, separated by semicolons; empty where nothing speaks against it", _R
    ),
    Column("object_id", _S, "", "candidate_id of its earliest detection after the event", _O),
    Column("name", _S, "", "name made of its position", _O),
    Column("ra", _D, "deg", "right ascension, ICRS, mean weighted by signal-to-noise", _O, True),
    Column("dec", _D, "deg", "declination, ICRS", _O, True),
    Column("detections", _I, "", "detections after the event", _O),
    Column("units", _S, "", "units that saw it, separated by commas", _O),
    Column("bands", _S, "", "filters, separated by commas", _O),
    Column("first_mjd", _D, "d", "first detection after the event, UTC", _O),
    Column("last_mjd", _D, "d", "last detection, UTC", _O),
    Column("epochs", _I, "", "detections that lie apart in time", _O),
    Column("mag_first", _F, "mag", "magnitude of the first detection", _O, True),
    Column("mag_last", _F, "mag", "magnitude of the last", _O, True),
    Column("mag_brightest", _F, "mag", "brightest magnitude", _O, True),
    Column("snr", _F, "", "highest signal-to-noise ratio", _O),
    Column("score", _F, "", "mean real/bogus score of the detections that count", _O, True),
    Column("score_spread", _F, "", "their scatter and model uncertainty in quadrature", _O, True),
    Column("flags", _I, "", "bits of nightsift.flags.Flag that all its detections have", _O),
    Column("best_id", _S, "", "candidate_id of its best detection, which is shown", _O),
    Column("candidate_ids", pa.list_(_S), "", "its detections in order of time", _O),
    Column("earlier", _I, "", "detections at its place before the event", _H),
    Column("earlier_mjd", _D, "d", "the last of them, UTC", _H, True),
    Column("limit_mjd", _D, "d", "last exposure before the event that would have shown it and did not, UTC", _H, True),
    Column("limit_mag", _F, "mag", "5-sigma limit of that exposure", _H, True),
    Column("misses", _I, "", "deeper exposures after its first detection that do not show it", _H),
    Column("known", _S, "", "known object at its place: star, nucleus or mover; empty for none", _K),
    Column("known_name", _S, "", "catalogue, or designation of the minor planet", _K),
    Column("known_separation", _F, "arcsec", "distance from it", _K, True),
    Column("host_state", _S, "", "host, hostless, or unknown without a catalogue of galaxies", _G),
    Column("host_name", _S, "", "galaxy of the smallest normalised separation; empty without one", _G),
    Column("host_separation", _F, "arcsec", "distance from its centre", _G, True),
    Column("host_offset", _F, "", "the same in half-light radii of the galaxy in that direction", _G, True),
    Column("host_distance", _D, "Mpc", "distance of the galaxy", _G, True),
    Column("host_distance_err", _D, "Mpc", "its standard deviation", _G, True),
    Column("host_chance", _F, "", "probability of a galaxy as bright as near by chance", _G, True),
    Column("credible_level", _D, "", "probability of the smallest region of the sky map that holds it", _R, True),
    Column("density", _D, "deg**-2", "probability density of the sky map there", _R, True),
    Column("map_distance", _D, "Mpc", "mean distance along the line of sight", _R, True),
    Column("map_distance_std", _D, "Mpc", "its standard deviation", _R, True),
    Column("p_real", _D, "", "probability to be real", _O),
    Column("p_static", _D, "", "probability to be neither moving nor false, by what was seen again", _H),
    Column("p_new", _D, "", "probability that nothing real was seen there before the event", _H),
    Column("p_unknown", _D, "", "probability to be no known object", _K),
    Column("time_factor", _D, "", "how much more likely its time is for a counterpart than by chance", _H),
    Column("sky_factor", _D, "", "the same of its place in the sky map", _R),
    Column("distance_factor", _D, "", "the same of its host and distance", _R),
)
RANKED = schema(RANKED_COLUMNS, "ranked candidates")
