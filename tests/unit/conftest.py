"""What lies beside this file may be imported by all unit tests."""
