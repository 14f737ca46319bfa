"""These tests run where a Chromium is installed (Debian's package `chromium`); where none is, the run says so."""

from tests.browser.chromium import MISSING

collect_ignore_glob = ["test_*.py"] if MISSING else []
