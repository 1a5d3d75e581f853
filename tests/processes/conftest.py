"""Property tests that do not depend on how busy the machine is, and draw the same examples in every run."""

from hypothesis import settings

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
