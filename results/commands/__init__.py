"""The commands of this room, one a file: what ``medadapt study``, ``compare``, ``report`` and the others run."""
