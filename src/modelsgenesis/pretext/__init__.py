"""The four deformations and their composition."""
