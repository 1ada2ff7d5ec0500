"""Pictures of a topology: the graph, and the formats that it is drawn in. Pure."""
