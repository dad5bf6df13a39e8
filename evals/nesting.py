"""How deep a YAML text nests, before a parser is asked whose time grows with the square of it. Pure."""

from __future__ import annotations

import re

MOST = 100  # far above what a suite or a release needs; 2,000 open brackets took the parser minutes


def too_deep(text: str) -> bool:
    """Whether more than MOST brackets are open at once, those in quotes counted too."""
    depth = 0
    for one in re.finditer(r"[\[{\]}]", text):
        depth = depth + 1 if one.group() in "[{" else max(depth - 1, 0)
        if depth > MOST:
            return True
    return False
