"""The command line: a client of the API, and the few things that work without it."""
