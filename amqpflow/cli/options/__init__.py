"""Options that several commands share, and what a command receives of them."""
