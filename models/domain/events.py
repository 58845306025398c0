"""What a user is told, in the past tense, each with the owner's sequence number."""

from enum import StrEnum


class EventType(StrEnum):
    ORDER_ACCEPTED = "order.accepted"
    ORDER_WORKING = "order.working"
    ORDER_SPLIT = "order.split"
    ORDER_FILLED = "order.filled"
    ORDER_EXPIRED = "order.expired"
    ORDER_CANCELLED = "order.cancelled"
    ORDER_REJECTED = "order.rejected"
    JOB_PROGRESS = "job.progress"
    JOB_DONE = "job.done"
    JOB_FAILED = "job.failed"
