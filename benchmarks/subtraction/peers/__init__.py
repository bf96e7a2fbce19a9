"""Other codes that subtract images, one module each, called as their authors advise for such a survey.

A module gives ``available() -> str`` (empty, or why it cannot be called) and ``run(planes, threads) -> Products``.
`planes` are the arrays of a pair file of `fields`: ``science_data``, ``science_variance``, ``science_mask``, the same
of the template, and ``told``. Modules need nothing of nightsift, so that a peer can live in another environment: name
its interpreter in ``NIGHTSIFT_PEER_PYTHON``. Programs are looked for on the PATH (or ``NIGHTSIFT_HOTPANTS``).
"""
