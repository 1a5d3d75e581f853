"""Devices: arms (Dynamixel chains on a serial port) and cameras. Never imports the bus; knows nothing of processes."""
