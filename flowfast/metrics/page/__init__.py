"""The status page: what a person sees who opens the exporter in a browser."""
