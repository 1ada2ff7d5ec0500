"""Topology files: YAML text -> document with positions -> specification -> compiled topology. Pure."""
