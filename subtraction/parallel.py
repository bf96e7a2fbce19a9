"""Row bands of an image over threads: what `nightsift.parallel` offers, under the name that the methods use."""

from nightsift.parallel import over_rows, thread_count

__all__ = ["over_rows", "thread_count"]
