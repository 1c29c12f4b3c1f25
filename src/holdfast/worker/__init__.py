"""Workers: the roles that keep jobs going, each in its file; `crew.py` wires those of one worker."""
