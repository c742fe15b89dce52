"""Measures encoders: protocols of public benchmarks and of any labelled recordings, their metrics, and a report."""
