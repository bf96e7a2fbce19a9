"""``nightsift compile``: compile now what the first exposure would wait for."""

from __future__ import annotations

from typing import Annotated

import typer


def compile_now(
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what was compiled before: after an update.")] = False,
) -> None:
    """Compile all loops over pixels into the cache on disk; once after installing, or when an image is built."""
    from flows.compilation import compile_loops, forget_compiled
    from nightsift.cli.console import console

    out = console()
    if fresh:
        out.print(f"{forget_compiled()} compiled files deleted", highlight=False)
    seconds = compile_loops(lambda step, taken: out.print(f"{step}: {taken:.0f} s", highlight=False))
    out.print(f"compiled in {sum(seconds.values()):.0f} s; done before, it takes seconds", highlight=False)
