"""Numbers as people read them."""

from __future__ import annotations

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float) -> str:
    """Write a value with three decimals, without a minus sign where nothing is left of it.

    >>> number(-0.0001), number(-0.0123)
    ('0.000', '-0.012')
    """
    return f"{round(value, 3) + 0.0:.3f}"


def percent(share: float, sign: str = "%") -> str:
    """Write a share as a percentage that says 100 only for all.

    >>> percent(0.974), percent(0.9997), percent(1.0)
    ('97.4%', '99.97%', '100.0%')
    """
    text = f"{100 * share:.1f}"
    if text == "100.0" and share < 1:
        text = f"{min(100 * share, 99.99):.2f}"
    return text + sign


def short(value: int | float) -> str:
    """Write a number with three digits and a prefix for thousands.

    >>> short(167178.0), short(28.04), short(999_600.0), short(0.0)
    ('167k', '28', '1M', '0')
    """
    for size, unit in _UNITS:
        if float(f"{value:.3g}") >= size:
            return f"{float(f'{value:.3g}') / size:.3g}{unit}"
    return f"{value:.3g}"
