"""Pure functions from what is (RouterState) and what is wanted (Config) to Desired, and why. Never imports kernel/."""
