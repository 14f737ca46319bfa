"""These tests run where a Firefox is installed (Debian's package `firefox-esr`); where none is, the run says so."""

from tests.browser.firefox import FIREFOX

collect_ignore_glob = [] if FIREFOX else ["test_*.py"]
