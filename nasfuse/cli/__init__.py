"""The command line: one verb, one call. Heavy imports stay inside the verbs."""
