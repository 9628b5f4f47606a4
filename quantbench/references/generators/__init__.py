"""Models made here, with weights drawn from a seed: one file for each `generator` of a reference."""
