"""Dynamixel Protocol 2.0 and the X-series control table: pure knowledge shared by the driver and the emulated chain."""
