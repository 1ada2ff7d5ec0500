"""Read a topology file into a specification, with the place of everything that is wrong."""
