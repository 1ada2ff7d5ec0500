"""Pictures of a topology: what is drawn, and the formats it is drawn in. Pure."""
