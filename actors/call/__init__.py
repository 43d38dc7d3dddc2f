"""Call sessions: what voice gateways ask before a call, and all that they report of it.

resolve.py answers from the configuration in memory. Each call that is live has an actor of its own
(actor.py); the router (router.py) starts it, and takes what comes after the end. The rows are in
records.py; summary.py and timeline.py make sense of a call's events and are pure.
"""
