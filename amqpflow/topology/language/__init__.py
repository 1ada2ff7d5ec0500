"""The words of a topology file: keys, types, codes of diagnostics, the JSON schema."""
