"""Code written for other libraries, run on rheobase: one opt-in package a library."""
