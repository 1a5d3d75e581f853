"""The simulated rig: MuJoCo world, off-screen cameras, tasks, scripted demonstrators, lock-step episodes."""
