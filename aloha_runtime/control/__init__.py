"""Pure cores: limits, gate, teleoperation, modes, synchronisation. Time is an argument; no sockets, sleeps, clocks."""
