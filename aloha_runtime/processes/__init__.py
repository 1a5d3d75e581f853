"""One file = one process = one systemd unit; the files never import each other."""
