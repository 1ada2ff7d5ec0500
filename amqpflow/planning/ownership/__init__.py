"""Tell what a topology owns on a broker, and write it down."""
