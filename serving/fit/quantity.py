"""Kubernetes quantities as numbers (apimachinery, pkg/api/resource/quantity.go). Pure."""

import re
from collections.abc import Mapping
from decimal import Decimal

FACTORS: Mapping[str, Decimal | int] = {
    "": 1, "m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,9})?)(?:[eE]([0-9]{1,2})|(m|k|[MGTP]|[KMGTP]i)?)")


class QuantityInvalid(ValueError):
    """Kubernetes would not take it for a quantity."""


def parse_quantity(value: object) -> Decimal:
    """12Gi, 500m, 1e9 or 4. Raises QuantityInvalid."""
    match = QUANTITY.fullmatch(str(value)) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        raise QuantityInvalid(f"{str(value)[:40]!r} is no Kubernetes quantity; write it as 12Gi, 500m or 4")
    number, exponent, suffix = match.groups()
    return Decimal(number) * (Decimal(10) ** int(exponent) if exponent else FACTORS[suffix or ""])
