"""The nouns: frozen, without I/O. Every other package speaks in these; none of them imports anything of ours."""
