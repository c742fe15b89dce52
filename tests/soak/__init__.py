"""An agent under a load it can bear, for an hour: what grows, and how late it is."""
