"""Write a plan to a file and tell whether it is still true."""
