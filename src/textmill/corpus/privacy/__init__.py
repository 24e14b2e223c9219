"""Personal data: found by pattern and check digit, counted, replaced."""
