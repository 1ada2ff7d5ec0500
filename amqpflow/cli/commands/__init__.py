"""The commands, one a module: each parses, calls the client, and renders."""
