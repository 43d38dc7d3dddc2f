"""Events told by HTTP: an outbox for each endpoint, filled from the log, emptied in order."""
