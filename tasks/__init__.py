"""One stage a file, in path order, with the values that pass between them in artifacts.py."""
