"""Turn a specification into what a broker should hold."""
