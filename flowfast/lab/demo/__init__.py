"""The demo: real IPsec on a real kernel, first over the full L3 path, then over the flowtable; measured and judged.

scenario.py runs in the guest and says what it does, one JSON line an event (events.py); host.py boots guests and puts
the answer together (result.py); verdict.py judges it; tables.py and report.py show it.
"""
