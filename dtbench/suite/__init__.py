"""What to run: suites in YAML, laid out as trial specifications."""
