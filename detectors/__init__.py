"""Online detectors behind one contract, calibration of their scores, and log-template mining."""
