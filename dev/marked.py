# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages of which a part is written by a command, between two lines that say so."""

from __future__ import annotations


def around(page: str, begin: str, end: str, name: str, what: str) -> tuple[str, str]:
    """What stands before the line `begin` and behind the line `end`. name: of the page. what: is written there.

    Raises ValueError unless each line is there once, in this order.
    """
    before, _, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not ended or begin in rest or end in before + after:
        raise ValueError(
            f"{name} has no place for {what}. They are written between {begin!r} and {end!r}: put both lines back."
        )
    return before, after
