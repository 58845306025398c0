"""Identifiers that sort by the time they were made."""

import os


def uuid7(now_us: int) -> str:
    """Return a version 7 UUID (RFC 9562, section 5.7) for a time in microseconds since the epoch.

    The first 48 bits are milliseconds, so identifiers made in order sort in order and keep database
    pages warm; the rest is random. Python has this in its library only from 3.14 on.
    """
    value = (now_us // 1000 & 0xFFFF_FFFF_FFFF) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
