"""The vocabulary: frozen values that all other packages use. Standard library only, no I/O."""
