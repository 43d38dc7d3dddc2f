"""A web page in a real Chromium, on a virtual screen with a sound server of its own.

It shows; somebody else's ffmpeg grabs picture and sound. Three processes make one page: Xvfb
(screen.py), pulseaudio (sound.py) and Chromium (browser.py), whose page is driven and watched over
DevTools (devtools.py, visit.py) and reaches the network only through gate.py.

Who runs them. Where the appliance is root they run as `nobody`, in a folder of nobody's, and
Chromium has its own sandbox (user namespaces); where it is not root they run as the appliance's
user, with the sandbox too. When there is no such user to become, or the kernel refuses the
namespaces, Chromium runs without its sandbox and an event `warning` says so.
"""

from actors.egress.page.page import Page
from actors.egress.page.request import NeverReady, PageEvent, PageLost, PageRequest

__all__ = ["NeverReady", "Page", "PageEvent", "PageLost", "PageRequest"]
