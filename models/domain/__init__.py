"""Pure: instruments, quotes, orders and their states, the book that matches them. No IO, no clock."""
