"""Real-time controller service for the ALOHA bimanual robot: no ROS, 50 Hz, and arms that stop when a program dies."""

__version__ = "0.1.0"
