"""A policy on another machine: keys, who is let in, the messages, the server's side and the robot PC's.

The only room that opens a network socket for messages, and it opens none without CURVE keys and an allow-list.
"""
