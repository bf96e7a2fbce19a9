"""``python -m nightsift``: the command line, for processes that are started by another of ours."""

from nightsift.cli import main

if __name__ == "__main__":
    main()
