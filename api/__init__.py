"""The HTTP and WebSocket surfaces: thin, built from one table of operations."""
