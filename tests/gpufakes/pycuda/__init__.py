"""As much of pycuda as the agent uses."""
