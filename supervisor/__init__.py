"""Mechanism: actors, supervision, the store, the event log, operating-system processes.

Nothing in this package knows a domain (no gateway, no call, no HTTP), and it
imports from none of the other packages. `tests/test_architecture.py` holds it
to that.
"""
