"""The domain: one package for each kind of actor."""
