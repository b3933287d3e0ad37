"""How long to wait before an attempt is made again.

Pure arithmetic; randomness is an argument, so that a test names the very delay it expects.
"""

from __future__ import annotations

import math

__all__ = ["delay_s"]


def delay_s(attempt: int, *, base_s: float, cap_s: float, random: float) -> float:
    """Gives the wait after a failed attempt: capped exponential growth with full jitter.

    The whole span below the ceiling is used and not only its upper part, because workers that failed
    together must not come back together.

    Args:
        attempt: how many attempts have failed in a row, from 1; any size.
        base_s: ceiling after the first, in seconds, above 0.
        cap_s: the ceiling never exceeds this, in seconds; at least `base_s`.
        random: uniform in [0, 1).

    Returns:
        Seconds, from 0 to below `min(cap_s, base_s * 2 ** (attempt - 1))`.

    Raises:
        ValueError: an argument is out of range.

    Source: AWS Builders' Library, "Timeouts, retries and backoff with jitter".
    """
    if attempt < 1 or not 0 < base_s <= cap_s < math.inf or not 0 <= random < 1:
        raise ValueError(f"No delay for attempt {attempt}, base {base_s} s, cap {cap_s} s, random {random}.")
    # The doublings are compared with those the cap allows, since 2.0 ** 1024 is an OverflowError.
    capped = attempt - 1 >= math.log2(cap_s) - math.log2(base_s)
    ceiling_s = cap_s if capped else math.ldexp(base_s, attempt - 1)
    return random * min(cap_s, ceiling_s)
