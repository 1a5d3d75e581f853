"""`aloha bench faults`: what must hold when something fails, tried on the simulated rig. One file for each family."""
