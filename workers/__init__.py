"""The processes that work: the Celery app with its tasks, the fulfilment loop, the collectors.

`python -m workers fulfilment` owns shards and fills orders; `python -m workers jobs` does the
housekeeping, with Celery's beat inside; `python -m workers.collector VENUE` reads one exchange.
"""
