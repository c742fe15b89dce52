"""Generated signals of machines, made by physical models; each module names the source of what it models."""
