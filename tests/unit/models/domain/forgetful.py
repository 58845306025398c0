"""A ledger with a fault on purpose: it forgets at each quote what was taken."""

from models.domain.ledger import Ledger


class ForgetfulLedger(Ledger):
    """Sells the same units again with every quote, as a naive paper broker does."""

    __slots__ = ()

    def show(self, now_us: int, price: int | None, size: int) -> None:
        """Take in a quote, and forget."""
        super().show(now_us, price, size)
        self.taken.clear()
        self._short_since.clear()
