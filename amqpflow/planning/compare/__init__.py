"""Compare a file with a broker: the steps of a plan, in their order."""
