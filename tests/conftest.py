"""Every test may ask for a guest: see bridge.py."""

pytest_plugins = ("tests.bridge",)
