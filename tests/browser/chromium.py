"""What the tests in a browser need, and what of it is missing here."""

from __future__ import annotations

import importlib.util
import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [what for what, there in (("Chromium", CHROMIUM), ("playwright", importlib.util.find_spec("playwright")))
           if not there]
