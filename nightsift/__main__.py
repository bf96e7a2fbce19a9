"""``python -m nightsift``: the command line, for processes that are started by another of ours.

Python looks for modules in the current folder first, unless it is started with ``-P``: there somebody's ``tasks.py`` or
``models.py`` would be taken for ours.
"""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]
    from nightsift.cli import main

    main()
