"""The flight recorder's room: the last minutes of every message, kept in memory, written as an MCAP file when something
happens, and read again. The process itself is `processes/flight.py`.
"""
