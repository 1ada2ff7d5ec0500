"""Find, read and hold topology files, and open what they name on a broker."""
