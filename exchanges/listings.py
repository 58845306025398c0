"""What a venue's own list of instruments says: see each package's `products.py`."""

from dataclasses import dataclass

from models.domain.instruments import Product


@dataclass(frozen=True)
class Listed:
    """One spot book of a venue: `base` and `quote` in the common names (BTC, not XBT), and whether it trades."""

    base: str
    quote: str
    product: Product
    trading: bool
