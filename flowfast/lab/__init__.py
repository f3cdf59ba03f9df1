"""The guest with a real kernel: image, machine, topologies, IKE daemon, traffic. Nothing here runs on a router."""
