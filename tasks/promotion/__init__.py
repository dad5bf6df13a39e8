"""Promotion: one function moves aliases (move.py), with a journal (journal.py), evidence (evidence.py) and a ledger (ledger.py)."""
