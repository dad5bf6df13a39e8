"""What a cluster lacks for the pipeline. START HERE: examine.py. Everything but read.py is pure."""
