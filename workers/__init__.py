"""The processes that work: the Celery app with its tasks, the fulfilment loop, the collectors.

`python -m workers fulfilment` owns shards and fills orders, and sweeps and checkpoints; `python -m
workers jobs` works price jobs, with Celery's beat inside, which asks for all of that; `python -m
workers.collector VENUE` reads one exchange.
"""
