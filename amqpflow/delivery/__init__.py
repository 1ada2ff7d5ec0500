"""A delivery and what its handler decided -> what to publish and how to settle. Pure."""
