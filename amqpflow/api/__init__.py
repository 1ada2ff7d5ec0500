"""The client, and a function for each of its calls: what the commands do, as calls that return values."""
