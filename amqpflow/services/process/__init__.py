"""Run a consumer as a process or several: signals, probes, supervision. It knows consumers by a protocol alone."""
