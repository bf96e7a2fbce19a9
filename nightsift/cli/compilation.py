"""``nightsift compile``: compile now what the first exposure would wait for."""

from __future__ import annotations


def compile_now() -> None:
    """Compile all loops over pixels into the cache on disk; once after installing, or when an image is built."""
    from flows.compilation import compile_loops
    from nightsift.cli.console import console

    out = console()
    seconds = compile_loops(lambda step, taken: out.print(f"{step}: {taken:.0f} s", highlight=False))
    out.print(f"compiled in {sum(seconds.values()):.0f} s; done before, it takes seconds", highlight=False)
