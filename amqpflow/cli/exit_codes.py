"""The exit codes of commands, which are part of the interface. Errors bring their own."""

from __future__ import annotations

FAILED = 1
DIFFERENCES = 2  #: or alerts
PARTLY_DONE = 3
REFUSED = 4
WRONG_USAGE = 64
INTERRUPTED = 130
