"""Every test may ask for a guest: see bridge.py. No property has a deadline: machines are shared, and slow at times."""

from hypothesis import settings

pytest_plugins = ("tests.bridge",)
settings.register_profile("flowfast", deadline=None)
settings.load_profile("flowfast")
