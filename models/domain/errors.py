"""The root of every error that this project raises on purpose.

CrossfillError
├── models.domain.instruments: UnknownSymbolError, StepError, ...
├── models.domain.orders: IllegalTransitionError
├── models.store.*: FencedError, StoreUnavailableError, KeyReusedError, ...
└── models.bus.*: BusUnavailableError
"""


class CrossfillError(Exception):
    """An expected failure; `retryable` says whether the same call may succeed later."""

    retryable = False
