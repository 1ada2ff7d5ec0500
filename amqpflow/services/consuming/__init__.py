"""Take messages from queues, have them handled, settle them, and say what became of each."""
