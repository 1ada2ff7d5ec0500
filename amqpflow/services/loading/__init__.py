"""Find, read and hold topology files; write files that survive a crash."""
