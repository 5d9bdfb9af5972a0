"""Growing delays between tries, as plain arithmetic."""


def grow_delay_s(tries: int, *, first_s: float, factor: float, most_s: float) -> float:
    """The delay after `tries` failures in a row; 0 before the first.

    Units: seconds. Shapes: the result never exceeds `most_s`.
    """
    if tries <= 0:
        return 0.0
    # Beyond 64 doublings every sensible cap is long reached; the bound keeps `**` from overflowing.
    return min(first_s * factor ** min(tries - 1, 64), most_s)
