"""SIP media gateways: one actor for each that is live, and the router that finds them.

`machine.py` decides, `actor.py` performs; `router.py` starts and puts away the actors.
"""
