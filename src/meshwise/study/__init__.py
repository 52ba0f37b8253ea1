"""The question: study file, factors, postures, topologies, and the randomised block design."""
