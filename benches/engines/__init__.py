"""One small program for each competitor; all take the same arguments and print the same line."""
