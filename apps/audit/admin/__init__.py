"""The log in words, for the console's pages."""
