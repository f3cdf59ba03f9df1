"""The experiment on a live router: windows on the fast path against windows on the full one, under its own traffic.

Pure are schedule.py, estimate.py, tally.py, split.py, verdict.py and fingerprint.py, over the nouns of result.py. The
kernel is touched by switch.py (one path or the other), meter.py (what a window cost and carried) and experiment.py
(both, in order). The full path is always correct, and the kernel itself ends a window on it (plan/pause.py).
"""
