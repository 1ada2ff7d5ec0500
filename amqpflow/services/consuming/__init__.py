"""Take messages from queues, have them handled, settle them, and report what became of each."""
